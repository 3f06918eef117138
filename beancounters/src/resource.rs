//! Which resources there are, and what each is called where.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::amount::Unit::{self, Bytes, Items, Pages};

/// One resource with a barrier and a limit.
///
/// The variants are in the order of the kernel's table (K6 `kernel/bc/proc.c`), with its four places called `dummy` left out; comparing
/// two resources compares their places.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "each is its own name; what it accounts is in the table of `describe`")]
pub enum Resource {
    Kmemsize,
    Lockedpages,
    Privvmpages,
    Shmpages,
    Numproc,
    Physpages,
    Vmguarpages,
    Oomguarpages,
    Numtcpsock,
    Numflock,
    Numpty,
    Numsiginfo,
    Tcpsndbuf,
    Tcprcvbuf,
    Othersockbuf,
    Dgramrcvbuf,
    Numothersock,
    Dcachesize,
    Numfile,
    Numiptent,
    /// Not in `user_beancounters`, but the last row of `bc/resources`.
    Swappages,
    /// The average number of processes: a hint for `vzcfgvalidate` and `vzsplit`, in configurations only, never counted.
    Avnumproc,
}

/// What one resource is called, and what it is counted in.
struct Facts {
    name: &'static str,
    config_key: &'static str,
    short_option: Option<char>,
    header: &'static str,
    unit: Unit,
    accounts: &'static str,
}

const fn facts(
    name: &'static str,
    config_key: &'static str,
    short_option: Option<char>,
    header: &'static str,
    unit: Unit,
    accounts: &'static str,
) -> Facts {
    Facts { name, config_key, short_option, header, unit, accounts }
}

/// In the order of [`Resource`]'s variants, which index it; a test holds the two together.
const FACTS: [Facts; 22] = [
    facts("kmemsize", "KMEMSIZE", Some('k'), "KMEMSIZE", Bytes, "kernel memory that cannot be swapped"),
    facts("lockedpages", "LOCKEDPAGES", Some('l'), "LOCKEDP", Pages, "memory locked by mlock and its kin"),
    facts(
        "privvmpages",
        "PRIVVMPAGES",
        None,
        "PRIVVMP",
        Pages,
        "private address space that may have to be backed by memory",
    ),
    facts("shmpages", "SHMPAGES", None, "SHMP", Pages, "shared memory: System V, tmpfs, shared anonymous"),
    facts("numproc", "NUMPROC", Some('p'), "NPROC", Items, "processes and threads"),
    facts("physpages", "PHYSPAGES", None, "PHYSP", Pages, "memory in RAM"),
    facts("vmguarpages", "VMGUARPAGES", None, "VMGUARP", Pages, "nothing: a guarantee of address space"),
    facts(
        "oomguarpages",
        "OOMGUARPAGES",
        None,
        "OOMGUARP",
        Pages,
        "anonymous memory and swap, under a guarantee when the host runs out",
    ),
    facts("numtcpsock", "NUMTCPSOCK", None, "NTCPSOCK", Items, "TCP sockets"),
    facts("numflock", "NUMFLOCK", Some('f'), "NFLOCK", Items, "file locks"),
    facts("numpty", "NUMPTY", Some('t'), "NPTY", Items, "pseudo-terminals"),
    facts("numsiginfo", "NUMSIGINFO", Some('i'), "NSIGINFO", Items, "queued signals"),
    facts("tcpsndbuf", "TCPSNDBUF", None, "TCPSNDB", Bytes, "send buffers of TCP sockets"),
    facts("tcprcvbuf", "TCPRCVBUF", Some('b'), "TCPRCVB", Bytes, "receive buffers of TCP sockets"),
    facts("othersockbuf", "OTHERSOCKBUF", None, "OTHSOCKB", Bytes, "send buffers of other sockets"),
    facts("dgramrcvbuf", "DGRAMRCVBUF", None, "DGRAMRB", Bytes, "receive buffers of datagram sockets"),
    facts("numothersock", "NUMOTHERSOCK", None, "NOTHSOCK", Items, "sockets other than TCP"),
    facts("dcachesize", "DCACHESIZE", Some('x'), "DCACHESZ", Bytes, "directory entries and inodes held in memory"),
    facts("numfile", "NUMFILE", Some('n'), "NFILE", Items, "open files"),
    facts("numiptent", "NUMIPTENT", Some('e'), "NIPTENT", Items, "packet filter rules"),
    facts("swappages", "SWAPPAGES", None, "SWAPP", Pages, "swap space"),
    facts("avnumproc", "AVNUMPROC", None, "AVNUMPROC", Items, "nothing: the expected average of numproc"),
];

/// Keys that old configurations use for another (V4 `lib/config.c`).
const CONFIG_KEY_ALIASES: [(&str, Resource); 2] =
    [("DCACHE", Resource::Dcachesize), ("IPTENTRIES", Resource::Numiptent)];

/// The text names no resource.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0} is not the name of a beancounter")]
pub struct UnknownResource(pub String);

impl Resource {
    /// Every resource, [`Resource::Avnumproc`] included.
    pub const ALL: [Self; 22] = {
        let mut all = [Self::Avnumproc; 22];
        let mut place = 0;
        while place < Self::LIVE.len() {
            all[place] = Self::LIVE[place];
            place += 1;
        }
        all
    };

    /// The 21 resources that are counted, in the order of `bc/resources`.
    pub const LIVE: [Self; 21] = [
        Self::Kmemsize,
        Self::Lockedpages,
        Self::Privvmpages,
        Self::Shmpages,
        Self::Numproc,
        Self::Physpages,
        Self::Vmguarpages,
        Self::Oomguarpages,
        Self::Numtcpsock,
        Self::Numflock,
        Self::Numpty,
        Self::Numsiginfo,
        Self::Tcpsndbuf,
        Self::Tcprcvbuf,
        Self::Othersockbuf,
        Self::Dgramrcvbuf,
        Self::Numothersock,
        Self::Dcachesize,
        Self::Numfile,
        Self::Numiptent,
        Self::Swappages,
    ];

    /// The 24 rows of `user_beancounters`; `None` is a row named `dummy`, the place of a resource that once was.
    pub const USER_BEANCOUNTERS: [Option<Self>; 24] = {
        let mut rows = [None; 24];
        let (mut row, mut next) = (0, 0);
        while row < rows.len() {
            if !matches!(row, 4 | 20..=22) {
                rows[row] = Some(Self::LIVE[next]);
                next += 1;
            }
            row += 1;
        }
        rows
    };

    const fn facts(self) -> &'static Facts {
        &FACTS[self as usize]
    }

    /// The name in the kernel's tables and in `vzlist -o`: `numproc`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.facts().name
    }

    /// The key in a container's configuration file: `NUMPROC`.
    #[must_use]
    pub const fn config_key(self) -> &'static str {
        self.facts().config_key
    }

    /// The long option of `vzctl set`, without its dashes: the same word as [`Resource::name`].
    #[must_use]
    pub const fn option(self) -> &'static str {
        self.facts().name
    }

    /// The short option of `vzctl set`, for those that have one: `p` of `-p`.
    #[must_use]
    pub const fn short_option(self) -> Option<char> {
        self.facts().short_option
    }

    /// The heading of its column in `vzlist`; `.M`, `.B`, `.L` and `.F` are appended for maxheld, barrier, limit and failcnt.
    /// V4 had no column for [`Resource::Avnumproc`], which answers its key.
    #[must_use]
    pub const fn header(self) -> &'static str {
        self.facts().header
    }

    /// What its numbers count, and what a number without a suffix means.
    #[must_use]
    pub const fn unit(self) -> Unit {
        self.facts().unit
    }

    /// What it accounts, in a few words for a help text.
    #[must_use]
    pub const fn describe(self) -> &'static str {
        self.facts().accounts
    }

    /// Whether it is counted at all: everything but [`Resource::Avnumproc`].
    #[must_use]
    pub const fn is_live(self) -> bool {
        !matches!(self, Self::Avnumproc)
    }

    /// Whether its barrier is a promise to the container and its limit has no meaning (`vmguarpages`, `oomguarpages`).
    #[must_use]
    pub const fn is_guarantee(self) -> bool {
        matches!(self, Self::Vmguarpages | Self::Oomguarpages)
    }

    /// The resource of a key in a configuration file, old keys included. Keys are upper case, as V4 has them.
    #[must_use]
    pub fn from_config_key(key: &str) -> Option<Self> {
        let alias = CONFIG_KEY_ALIASES.iter().find(|(old, _)| *old == key).map(|(_, resource)| *resource);
        alias.or_else(|| Self::ALL.into_iter().find(|resource| resource.config_key() == key))
    }
}

impl FromStr for Resource {
    type Err = UnknownResource;

    /// By [`Resource::name`], in any case: `vzlist -o NUMPROC` is asked too.
    fn from_str(text: &str) -> Result<Self, UnknownResource> {
        Self::ALL
            .into_iter()
            .find(|resource| resource.name().eq_ignore_ascii_case(text))
            .ok_or_else(|| UnknownResource(text.to_owned()))
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_facts_of_a_resource_are_its_own() {
        for (place, resource) in Resource::ALL.into_iter().enumerate() {
            assert_eq!(resource as usize, place, "{resource:?} is out of its place");
            assert_eq!(format!("{resource:?}").to_lowercase(), resource.name());
            assert_eq!(resource.name().to_uppercase(), resource.config_key());
        }
    }

    #[test]
    fn the_kernels_table_has_24_rows_four_of_them_dummies() {
        let dummies: Vec<_> = (0..24).filter(|&row| Resource::USER_BEANCOUNTERS[row].is_none()).collect();
        assert_eq!(dummies, [4, 20, 21, 22]);
        assert_eq!(Resource::USER_BEANCOUNTERS[5], Some(Resource::Numproc));
        assert_eq!(Resource::USER_BEANCOUNTERS[19], Some(Resource::Numfile));
        assert_eq!(Resource::USER_BEANCOUNTERS[23], Some(Resource::Numiptent));
        assert!(!Resource::USER_BEANCOUNTERS.contains(&Some(Resource::Swappages)));
    }

    #[test]
    fn a_resource_is_found_by_every_spelling_of_its_key() {
        for resource in Resource::ALL {
            assert_eq!(Resource::from_config_key(resource.config_key()), Some(resource));
            assert_eq!(resource.name().parse(), Ok(resource));
        }
        assert_eq!(Resource::from_config_key("DCACHE"), Some(Resource::Dcachesize));
        assert_eq!(Resource::from_config_key("IPTENTRIES"), Some(Resource::Numiptent));
        assert_eq!(Resource::from_config_key("numproc"), None);
        assert_eq!("NumProc".parse(), Ok(Resource::Numproc));
        assert_eq!("dummy".parse::<Resource>(), Err(UnknownResource("dummy".to_owned())));
    }

    #[test]
    fn short_options_are_not_given_twice() {
        let mut letters: Vec<_> = Resource::ALL.into_iter().filter_map(Resource::short_option).collect();
        letters.sort_unstable();
        assert_eq!(letters.iter().collect::<String>(), "befiklnptx");
    }
}
