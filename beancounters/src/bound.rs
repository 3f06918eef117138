//! Barrier and limit of one resource.

use std::fmt;

use crate::amount::{Amount, BadAmount, UNLIMITED};
use crate::resource::Resource;

/// The barrier and the limit of a resource. What crossing each of them does differs from resource to resource.
///
/// Displayed as configurations have it: `bar:lim`, in the unit of the resource, with `unlimited` spelled out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Bound {
    resource: Resource,
    barrier: u64,
    limit: u64,
}

/// The text is no bound for this resource.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("bad value for {resource}: {text:?}")]
pub struct BadBound {
    /// The resource that was to be bounded.
    pub resource: Resource,
    /// What was given.
    pub text: String,
    /// Why that cannot be.
    pub source: BadAmount,
}

impl Bound {
    /// A bound in the unit of its resource; numbers above [`UNLIMITED`] are unlimited.
    #[must_use]
    pub fn new(resource: Resource, barrier: u64, limit: u64) -> Self {
        Self { resource, barrier: barrier.min(UNLIMITED), limit: limit.min(UNLIMITED) }
    }

    /// `unlimited:unlimited`.
    #[must_use]
    pub fn unlimited(resource: Resource) -> Self {
        Self::new(resource, UNLIMITED, UNLIMITED)
    }

    /// What the kernel of OpenVZ gave a new beancounter (K6 `kernel/bc/beancounter.c`): everything, and no guarantee of address space.
    /// Its oomguarpages barrier was 75 % of the host's RAM.
    #[must_use]
    pub fn kernel_default(resource: Resource, host_ram_bytes: u64) -> Self {
        let barrier = match resource {
            Resource::Vmguarpages => 0,
            Resource::Oomguarpages => Amount::pages_for(host_ram_bytes / 4 * 3).count(),
            _ => UNLIMITED,
        };
        Self::new(resource, barrier, UNLIMITED)
    }

    /// Reads `bar:lim` or a single value, in the spellings of [`parse_count`](crate::amount::parse_count).
    ///
    /// A single value is both barrier and limit, but for a guarantee, whose limit has to be unlimited, it is the barrier. A barrier above
    /// its limit is read as it stands: whether a configuration makes sense is not a question of spelling.
    ///
    /// # Errors
    /// The text is not of this form, or out of range.
    pub fn parse(resource: Resource, text: &str) -> Result<Self, BadBound> {
        let bad = |source| BadBound { resource, text: text.to_owned(), source };
        let amount = |part| Amount::parse(resource.unit(), part).map(Amount::count).map_err(bad);
        let mut parts = text.split(':');
        let barrier = amount(parts.next().unwrap_or_default())?;
        let limit = match parts.next() {
            Some(limit) => amount(limit)?,
            None if resource.is_guarantee() => UNLIMITED,
            None => barrier,
        };
        if parts.next().is_some() {
            return Err(bad(BadAmount::TooManyValues(text.to_owned())));
        }
        Ok(Self::new(resource, barrier, limit))
    }

    /// Whose bound it is.
    #[must_use]
    pub fn resource(self) -> Resource {
        self.resource
    }

    /// The barrier.
    #[must_use]
    pub fn barrier(self) -> Amount {
        Amount::new(self.resource.unit(), self.barrier)
    }

    /// The limit.
    #[must_use]
    pub fn limit(self) -> Amount {
        Amount::new(self.resource.unit(), self.limit)
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.barrier(), self.limit())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(resource: Resource, text: &str) -> String {
        Bound::parse(resource, text).unwrap_or_else(|e| panic!("{e}: {}", e.source)).to_string()
    }

    #[test]
    fn one_value_is_barrier_and_limit_but_a_guarantees_limit_is_unlimited() {
        assert_eq!(written(Resource::Numproc, "40"), "40:40");
        assert_eq!(written(Resource::Kmemsize, "1M"), "1048576:1048576");
        assert_eq!(written(Resource::Vmguarpages, "33792"), "33792:unlimited");
        assert_eq!(written(Resource::Oomguarpages, "26112"), "26112:unlimited");
        assert_eq!(written(Resource::Oomguarpages, "26112:30000"), "26112:30000");
    }

    #[test]
    fn the_values_of_the_sample_configurations_are_read() {
        assert_eq!(written(Resource::Kmemsize, "14372700:14790164"), "14372700:14790164");
        assert_eq!(written(Resource::Physpages, "0:unlimited"), "0:unlimited");
        assert_eq!(written(Resource::Oomguarpages, "unlimited:unlimited"), "unlimited:unlimited");
        assert_eq!(written(Resource::Privvmpages, "65536:9223372036854775807"), "65536:unlimited");
        let vswap = Bound::parse(Resource::Physpages, "0:512M").expect("as in ve-vswap-512m");
        assert_eq!(vswap.limit().in_bytes().map(Amount::count), Some(512 << 20));
    }

    #[test]
    fn text_that_is_no_bound_is_refused_with_its_resource_and_reason() {
        for (text, reason) in [
            ("", BadAmount::Missing),
            (":", BadAmount::Missing),
            ("1:", BadAmount::Missing),
            (":1", BadAmount::Missing),
            ("1:2:3", BadAmount::TooManyValues("1:2:3".to_owned())),
            ("1:-1", BadAmount::Negative("-1".to_owned())),
            ("240 240", BadAmount::UnknownSuffix { text: "240 240".to_owned(), suffix: " 240".to_owned() }),
            ("1:18446744073709551615", BadAmount::TooLarge("18446744073709551615".to_owned())),
        ] {
            let error = Bound::parse(Resource::Numproc, text).expect_err(text);
            assert_eq!((error.source, error.resource), (reason, Resource::Numproc), "{text}");
        }
        let error = Bound::parse(Resource::Numproc, "x\n").expect_err("not a number");
        assert_eq!(error.to_string(), r#"bad value for numproc: "x\n""#);
    }

    #[test]
    fn a_new_beancounter_may_take_everything() {
        let ram = 4 << 30;
        assert_eq!(Bound::kernel_default(Resource::Numproc, ram), Bound::unlimited(Resource::Numproc));
        assert_eq!(Bound::kernel_default(Resource::Vmguarpages, ram).to_string(), "0:unlimited");
        assert_eq!(
            Bound::kernel_default(Resource::Oomguarpages, ram).barrier().in_bytes().map(Amount::count),
            Some(3 << 30)
        );
    }

    proptest! {
        #[test]
        fn a_bound_is_read_back_as_it_was_written(barrier: u64, limit: u64, place in 0..Resource::ALL.len()) {
            let bound = Bound::new(Resource::ALL[place], barrier, limit);
            prop_assert_eq!(Bound::parse(bound.resource(), &bound.to_string()), Ok(bound));
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in ".{0,40}", place in 0..Resource::ALL.len()) {
            let resource = Resource::ALL[place];
            if let Ok(bound) = Bound::parse(resource, &text) {
                prop_assert_eq!(Bound::parse(resource, &bound.to_string()), Ok(bound));
            }
        }
    }
}
