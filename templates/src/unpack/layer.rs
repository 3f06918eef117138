//! What a layer of an OCI image says of the layers below it (image-spec, `layer.md`), in overlay's words.
//!
//! `.wh.NAME` becomes a whiteout, a character device 0:0, which the child makes. `.wh..wh..opq` makes a directory opaque by an attribute that
//! only the host's root may set: the child tells its parent which. And it tells which directories it made because a member lay in them and none
//! was for them: in the layers' sum those have the attributes that they have below.

use std::collections::{BTreeSet, HashSet};

use serde::{Deserialize, Serialize};

use super::member::{Place, Refusal, shown};

/// What is left to do with the directories of a layer: paths below its root, without `/` at the beginning.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LayerMarks {
    /// Nothing of the layers below shows in them; an empty path is the root itself.
    pub(crate) opaque: Vec<Vec<u8>>,
    /// Made unasked.
    pub(crate) unasked: Vec<Vec<u8>>,
}

/// What a name means in a layer.
pub(super) enum Special {
    /// A file, and nothing else.
    No,
    /// A file that a union file system of old had for itself.
    Nothing,
    /// Its directory hides what is below.
    Opaque,
    /// This is gone.
    Whiteout(Place),
}

impl Special {
    pub(super) fn of(place: &Place, raw: &[u8]) -> Result<Self, Refusal> {
        let Some(gone) = place.name().strip_prefix(b".wh.") else { return Ok(Self::No) };
        if gone == b".wh..opq" {
            return Ok(Self::Opaque);
        }
        if gone.starts_with(b".wh.") {
            return Ok(Self::Nothing);
        }
        let impossible = || Refusal::ImpossibleName { member: shown(raw) };
        if matches!(gone, b"" | b"." | b"..") {
            return Err(impossible());
        }
        let path = [place.parent(), gone].join(&b'/');
        Place::parse(&path)?.map(Self::Whiteout).ok_or_else(impossible)
    }
}

/// What a layer has hidden so far.
#[derive(Debug, Default)]
pub(super) struct Hidden {
    whiteouts: HashSet<Vec<u8>>,
    opaque: BTreeSet<Vec<u8>>,
    unasked: BTreeSet<Vec<u8>>,
}

impl Hidden {
    pub(super) fn whited_out(&mut self, path: &[u8]) {
        self.whiteouts.insert(path.to_vec());
    }

    pub(super) fn is_whiteout(&self, path: &[u8]) -> bool {
        self.whiteouts.contains(path)
    }

    pub(super) fn set_opaque(&mut self, path: &[u8]) {
        self.opaque.insert(path.to_vec());
    }

    /// A member is made here. A directory in the place of a whiteout hides what the whiteout hid.
    pub(super) fn replaced(&mut self, path: &[u8], by_directory: bool) {
        if by_directory {
            self.unasked.remove(path);
        }
        if self.whiteouts.remove(path) && by_directory {
            self.set_opaque(path);
        }
    }

    /// A directory was removed for what is made in its place.
    pub(super) fn removed(&mut self, path: &[u8]) {
        self.opaque.remove(path);
        self.unasked.remove(path);
    }

    pub(super) fn made_unasked(&mut self, path: &[u8]) {
        self.unasked.insert(path.to_vec());
    }

    /// Those among the directories above `path` that are whiteouts.
    pub(super) fn whiteouts_above(&self, path: &[u8]) -> Vec<Vec<u8>> {
        if self.whiteouts.is_empty() {
            return Vec::new();
        }
        let ends = path.iter().enumerate().filter(|(_, b)| **b == b'/').map(|(at, _)| &path[..at]);
        ends.filter(|above| self.whiteouts.contains(*above)).map(<[u8]>::to_vec).collect()
    }

    pub(super) fn marks(self) -> LayerMarks {
        LayerMarks { opaque: self.opaque.into_iter().collect(), unasked: self.unasked.into_iter().collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn special(name: &str) -> Result<Special, Refusal> {
        Special::of(&Place::parse(name.as_bytes())?.unwrap(), name.as_bytes())
    }

    #[test]
    fn names_that_begin_with_wh_are_whiteouts_of_what_follows() {
        for (name, gone) in [("a/.wh.b", "a/b"), (".wh.etc", "etc"), (".wh....", "...")] {
            let found = special(name).unwrap();
            assert!(matches!(&found, Special::Whiteout(place) if place.path() == gone.as_bytes()), "{name}");
        }
        assert!(matches!(special("a/.wh..wh..opq").unwrap(), Special::Opaque));
        assert!(matches!(special("a/.wh..wh.plnk").unwrap(), Special::Nothing));
        assert!(matches!(special("a/wh.b").unwrap(), Special::No));
    }

    #[test]
    fn a_whiteout_of_the_directory_itself_or_of_the_one_above_is_refused() {
        for name in ["a/.wh.", "a/.wh..", "a/.wh...", ".wh..."] {
            assert!(matches!(special(name), Err(Refusal::ImpossibleName { .. })), "{name}");
        }
    }
}
