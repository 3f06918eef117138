//! The bounds of one configuration.

use std::collections::BTreeMap;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::bound::Bound;
use crate::resource::Resource;

/// Bounds, at most one for each resource. What is not in it was not said, which is not the same as unlimited.
///
/// Serialized as a map from names to `bar:lim`: text, because readers of JSON keep 53 bits of a number.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Set(BTreeMap<Resource, Bound>);

impl Set {
    /// The bound of `resource`, if it was said.
    #[must_use]
    pub fn get(&self, resource: Resource) -> Option<Bound> {
        self.0.get(&resource).copied()
    }

    /// Says a bound, and returns the one said before for the same resource.
    pub fn insert(&mut self, bound: Bound) -> Option<Bound> {
        self.0.insert(bound.resource(), bound)
    }

    /// Says a bound unless there is one.
    pub fn insert_if_absent(&mut self, bound: Bound) {
        self.0.entry(bound.resource()).or_insert(bound);
    }

    /// Takes a bound back.
    pub fn remove(&mut self, resource: Resource) -> Option<Bound> {
        self.0.remove(&resource)
    }

    /// All that were said, in the order of the tables.
    pub fn iter(&self) -> impl Iterator<Item = Bound> + '_ {
        self.0.values().copied()
    }

    /// Whether nothing was said.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Extend<Bound> for Set {
    fn extend<I: IntoIterator<Item = Bound>>(&mut self, bounds: I) {
        self.0.extend(bounds.into_iter().map(|bound| (bound.resource(), bound)));
    }
}

/// Of several bounds for one resource the last one counts, as in a configuration file.
impl FromIterator<Bound> for Set {
    fn from_iter<I: IntoIterator<Item = Bound>>(bounds: I) -> Self {
        let mut set = Self::default();
        set.extend(bounds);
        set
    }
}

impl Serialize for Set {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter().map(|bound| (bound.resource(), bound.to_string())))
    }
}

impl<'de> Deserialize<'de> for Set {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let texts = BTreeMap::<Resource, String>::deserialize(deserializer)?;
        texts
            .into_iter()
            .map(|(resource, text)| {
                Bound::parse(resource, &text).map_err(|bad| D::Error::custom(format_args!("{bad}: {}", bad.source)))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_last_of_two_bounds_for_a_resource_counts() {
        let set: Set = [40, 240].map(|count| Bound::new(Resource::Numproc, count, count)).into_iter().collect();
        assert_eq!(set.iter().map(|bound| bound.to_string()).collect::<Vec<_>>(), ["240:240"]);
        let mut kept = set.clone();
        kept.insert_if_absent(Bound::unlimited(Resource::Numproc));
        assert_eq!(kept, set);
        assert_eq!(kept.remove(Resource::Numproc), set.get(Resource::Numproc));
        assert!(kept.is_empty());
    }

    #[test]
    fn a_set_is_json_that_people_can_read() {
        let set: Set = [Bound::new(Resource::Numproc, 240, 240), Bound::new(Resource::Physpages, 0, u64::MAX)]
            .into_iter()
            .collect();
        let json = serde_json::to_string(&set).expect("a map of text");
        assert_eq!(json, r#"{"numproc":"240:240","physpages":"0:unlimited"}"#);
        let bad = serde_json::from_str::<Set>(r#"{"numproc":"4K"}"#).expect_err("processes have no size").to_string();
        assert!(bad.starts_with(r#"bad value for numproc: "4K": "4K" ends in 'K'"#), "{bad}");
    }

    proptest! {
        #[test]
        fn a_set_survives_json(bounds in proptest::collection::vec((0..Resource::ALL.len(), any::<u64>(), any::<u64>()), 0..30)) {
            let set: Set = bounds.into_iter().map(|(place, b, l)| Bound::new(Resource::ALL[place], b, l)).collect();
            let json = serde_json::to_string(&set).expect("a map of text");
            prop_assert_eq!(serde_json::from_str::<Set>(&json).expect("what was just written"), set);
        }
    }
}
