//! The uid and gid range of a container: 65,536 numbers of its own, which nothing else on the host may have.
//!
//! The ranges are the wall between containers (and between them and the host), so they come from one place, under one lock, and what is
//! taken is read from the configurations themselves: no second list that could disagree. A destroyed container's range is free again.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags};
use vzrt::Ctid;

use super::document::{self, DocumentError};
use super::node::Node;
use crate::Exit;

/// Numbers in a range: what a distribution's `nobody` (65534) and 16-bit programs need.
pub const WIDTH: u32 = 65_536;

/// `LOCAL_UID` and `LOCAL_GID` where `vz.conf` has none.
pub const DEFAULT_FIRST: u32 = 100_000;

/// Ranges that nobody hands out: the host's own users, the range systemd keeps for files of foreign images (systemd 257,
/// `doc/UIDS-GIDS.md`), and all from 2^31 on, which programs with a signed `uid_t` take for errors.
const RESERVED: [Range<u64>; 3] = [0..65_536, 0x7FFE_0000..0x7FFF_0000, 0x8000_0000..0x1_0000_0000];

/// A range could not be given.
#[derive(Debug, thiserror::Error)]
pub enum RangeError {
    /// Every step from `LOCAL_UID`/`LOCAL_GID` to the end is taken.
    #[error("no free range of {WIDTH} user and group numbers from LOCAL_UID={uid}, LOCAL_GID={gid} on")]
    Exhausted {
        /// `LOCAL_UID`.
        uid: u32,
        /// `LOCAL_GID`.
        gid: u32,
    },
    /// A range overlaps one that is taken.
    #[error("user or group numbers from {first} on overlap those of {owner}")]
    Overlap {
        /// Where the range begins.
        first: u32,
        /// Whose it is already.
        owner: Owner,
    },
    /// Some container's configuration could not be read; its range is unknown, so nothing is safe.
    #[error("the range of a container is unknown")]
    Config(#[source] DocumentError),
    /// A configuration holds no number where a range begins.
    #[error("{}: {key}={value:?} is not a number", path.display())]
    Value {
        /// The configuration.
        path: PathBuf,
        /// `LOCAL_UID` or `LOCAL_GID`.
        key: &'static str,
        /// What it says.
        value: String,
    },
    /// A list of the host's could not be read.
    #[error("{call}({path:?})")]
    Io {
        /// The system call.
        call: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl RangeError {
    /// The code `vzctl` ends with.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::Exhausted { .. } => Exit::NotEnoughResources,
            Self::Overlap { .. } | Self::Value { .. } => Exit::InvalidConfig,
            Self::Config(_) => Exit::NoGlobalConfig,
            Self::Io { .. } => Exit::System,
        }
    }
}

/// Who has a range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    /// A container.
    Container(Ctid),
    /// A user or group of the host, or a range of `/etc/subuid` or `/etc/subgid`: the file and the name.
    Host(&'static str, String),
    /// Nobody can have it.
    Reserved,
}

impl std::fmt::Display for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Container(ctid) => write!(f, "container {ctid}"),
            Self::Host(file, name) => write!(f, "{name} in {file}"),
            Self::Reserved => f.write_str("the system"),
        }
    }
}

/// Numbers in use, and by whom.
#[derive(Debug, Clone, Default)]
pub struct Taken(Vec<(Range<u64>, Owner)>);

impl Taken {
    /// Notes that `count` numbers from `first` on are in use.
    pub fn add(&mut self, first: u32, count: u64, owner: Owner) {
        self.0.push((u64::from(first)..u64::from(first).saturating_add(count), owner));
    }

    fn with_reserved() -> Self {
        Self(RESERVED.iter().cloned().map(|r| (r, Owner::Reserved)).collect())
    }

    /// Who has a number of the range that begins at `first`, other than container `but`.
    #[must_use]
    pub fn overlap(&self, first: u64, but: Option<Ctid>) -> Option<&Owner> {
        let (start, end) = (first, first + u64::from(WIDTH));
        let own = |o: &Owner| but.is_some_and(|ctid| *o == Owner::Container(ctid));
        self.0.iter().find(|(r, owner)| r.start < end && start < r.end && !own(owner)).map(|(_, owner)| owner)
    }

    /// For each step of `WIDTH` from `first` on whether any of it is taken: one pass over what is taken, whatever the order.
    fn steps(&self, first: u32) -> Vec<bool> {
        let width = u64::from(WIDTH);
        let count = (0x8000_0000_u64.saturating_sub(u64::from(first)) / width) as usize;
        let mut steps = vec![false; count];
        for (range, _) in &self.0 {
            let from = range.start.saturating_sub(u64::from(first)) / width;
            let to = range.end.saturating_sub(u64::from(first)).div_ceil(width);
            let clamp = |n: u64| usize::try_from(n).unwrap_or(count).min(count);
            if range.end > u64::from(first) {
                steps[clamp(from)..clamp(to)].fill(true);
            }
        }
        steps
    }
}

/// Where a container's numbers begin on the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bases {
    /// The host uid of the container's root.
    pub uid: u32,
    /// The host gid of the container's root.
    pub gid: u32,
}

/// The lowest step that is free among users and among groups, the same step for both so that they differ by no more than
/// `LOCAL_UID` and `LOCAL_GID` do.
#[must_use]
pub fn choose(first: Bases, uids: &Taken, gids: &Taken) -> Option<Bases> {
    let step = uids.steps(first.uid).iter().zip(gids.steps(first.gid)).position(|(uid, gid)| !*uid && !gid)?;
    let offset = u32::try_from(step).ok()? * WIDTH;
    Some(Bases { uid: first.uid + offset, gid: first.gid + offset })
}

/// A range that nobody else is given while this lives. Save it as `LOCAL_UID` and `LOCAL_GID`, then drop this.
#[derive(Debug)]
#[must_use = "the range is only safe from others until this is dropped"]
pub struct Allocation {
    /// The range.
    pub bases: Bases,
    /// Held for its lock.
    _lock: File,
}

/// Finds a range for a new container.
///
/// # Errors
/// None is free, or what is taken cannot be read in full.
pub fn allocate(node: &Node) -> Result<Allocation, RangeError> {
    let lock = lock(node)?;
    let (uids, gids) = taken(node, Path::new("/etc"), Err)?;
    let first = Bases { uid: node.global.local_uid, gid: node.global.local_gid };
    let exhausted = RangeError::Exhausted { uid: first.uid, gid: first.gid };
    Ok(Allocation { bases: choose(first, &uids, &gids).ok_or(exhausted)?, _lock: lock })
}

/// Checks the range a configuration brought along (a copied or migrated container, a number typed by hand). Held like an [`Allocation`].
///
/// The configuration of another container that can't be read is passed over: one broken file is not to keep all others from starting. That
/// container can't start before it is mended, and then its range is looked at.
///
/// # Errors
/// It overlaps another's, the host's users or what is reserved; or what is taken cannot be read.
pub fn adopt(node: &Node, ctid: Ctid, bases: Bases) -> Result<Allocation, RangeError> {
    let lock = lock(node)?;
    let (uids, gids) = taken(node, Path::new("/etc"), |unknown| match unknown {
        RangeError::Config(_) | RangeError::Value { .. } => Ok(()),
        other => Err(other),
    })?;
    for (first, taken) in [(bases.uid, &uids), (bases.gid, &gids)] {
        if let Some(owner) = taken.overlap(u64::from(first), Some(ctid)) {
            return Err(RangeError::Overlap { first, owner: owner.clone() });
        }
    }
    Ok(Allocation { bases, _lock: lock })
}

fn lock(node: &Node) -> Result<File, RangeError> {
    let dir = node.conf_dir();
    let failed = |call| {
        let path = dir.clone();
        move |source| RangeError::Io { call, path, source }
    };
    fs_err::create_dir_all(&dir).map_err(failed("mkdir"))?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = rustix::fs::open(&dir, flags, Mode::empty()).map_err(|e| failed("open")(e.into()))?;
    rustix::fs::flock(&fd, FlockOperation::LockExclusive).map_err(|e| failed("flock")(e.into()))?;
    Ok(File::from(fd))
}

/// Users and groups in use: by containers' configurations, by the host's accounts, by `subuid`/`subgid`. `unknown` decides about a
/// configuration that tells no range.
fn taken(
    node: &Node,
    etc: &Path,
    unknown: impl Fn(RangeError) -> Result<(), RangeError>,
) -> Result<(Taken, Taken), RangeError> {
    let (mut uids, mut gids) = (Taken::with_reserved(), Taken::with_reserved());
    accounts(&mut uids, etc, "passwd")?;
    accounts(&mut gids, etc, "group")?;
    subordinate(&mut uids, etc, "subuid")?;
    subordinate(&mut gids, etc, "subgid")?;
    let conf_dir = node.conf_dir();
    let containers = node.containers().map_err(|source| RangeError::Io { call: "readdir", path: conf_dir, source })?;
    for ctid in containers {
        of_container(&mut uids, &mut gids, &node.container_conf(ctid), ctid).or_else(&unknown)?;
    }
    Ok((uids, gids))
}

fn of_container(uids: &mut Taken, gids: &mut Taken, path: &Path, ctid: Ctid) -> Result<(), RangeError> {
    let text = match document::read(path, OFlags::NOFOLLOW) {
        // Destroyed since the directory was read.
        Err(e) if e.is_missing() => return Ok(()),
        text => text.map_err(RangeError::Config)?,
    };
    let (mut uid, mut gid) = (None, None);
    for pair in document::pairs(&text) {
        let (key, value) = pair.map_err(|bad| RangeError::Config(DocumentError::Bad { path: path.to_owned(), bad }))?;
        match key {
            "LOCAL_UID" => uid = Some(value),
            "LOCAL_GID" => gid = Some(value),
            _ => {}
        }
    }
    for (key, value, taken) in [("LOCAL_UID", uid, uids), ("LOCAL_GID", gid, gids)] {
        let Some(value) = value.filter(|v| !v.is_empty()) else { continue };
        let bad = |_| RangeError::Value { path: path.to_owned(), key, value: value.to_string() };
        taken.add(value.parse().map_err(bad)?, u64::from(WIDTH), Owner::Container(ctid));
    }
    Ok(())
}

/// `name:password:number:…` of passwd(5) and group(5).
fn accounts(taken: &mut Taken, etc: &Path, file: &'static str) -> Result<(), RangeError> {
    for line in host_file(&etc.join(file))?.lines() {
        let mut fields = line.split(':');
        if let (Some(name), Some(Ok(id))) = (fields.next(), fields.nth(1).map(str::parse)) {
            taken.add(id, 1, Owner::Host(file, name.to_owned()));
        }
    }
    Ok(())
}

/// `owner:first:count` of subuid(5) and subgid(5).
fn subordinate(taken: &mut Taken, etc: &Path, file: &'static str) -> Result<(), RangeError> {
    for line in host_file(&etc.join(file))?.lines() {
        let mut fields = line.split(':').map(str::trim);
        if let (Some(name), Some(Ok(first)), Some(Ok(count))) =
            (fields.next(), fields.next().map(str::parse), fields.next().map(str::parse))
        {
            taken.add(first, count, Owner::Host(file, name.to_owned()));
        }
    }
    Ok(())
}

fn host_file(path: &Path) -> Result<String, RangeError> {
    match fs_err::read(path) {
        Ok(text) => Ok(String::from_utf8_lossy(&text).into_owned()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(source) => Err(RangeError::Io { call: "read", path: path.to_owned(), source }),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    const FIRST: Bases = Bases { uid: DEFAULT_FIRST, gid: DEFAULT_FIRST };

    fn ct(n: u32) -> Ctid {
        Ctid::try_from(n).unwrap()
    }

    fn taken_by(containers: &BTreeMap<u32, Bases>) -> (Taken, Taken) {
        let (mut uids, mut gids) = (Taken::with_reserved(), Taken::with_reserved());
        for (n, bases) in containers {
            uids.add(bases.uid, u64::from(WIDTH), Owner::Container(ct(*n)));
            gids.add(bases.gid, u64::from(WIDTH), Owner::Container(ct(*n)));
        }
        (uids, gids)
    }

    fn assert_disjoint(containers: &BTreeMap<u32, Bases>) {
        for of in [|b: &Bases| b.uid, |b: &Bases| b.gid] {
            let mut firsts: Vec<u32> = containers.values().map(of).collect();
            firsts.sort_unstable();
            assert!(firsts.windows(2).all(|w| w[1] - w[0] >= WIDTH), "{firsts:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn ranges_stay_disjoint_while_containers_come_and_go(
            gone in proptest::sample::subsequence((0_u32..300).collect::<Vec<_>>(), 100),
            first_gid in 65_536_u32..200_000,
            subuid in 65_536_u32..20_000_000,
        ) {
            let first = Bases { uid: DEFAULT_FIRST, gid: first_gid };
            let mut containers = BTreeMap::new();
            let create = |containers: &mut BTreeMap<u32, Bases>, n: u32| {
                let (mut uids, gids) = taken_by(containers);
                uids.add(subuid, u64::from(WIDTH), Owner::Host("subuid", "user".into()));
                let bases = choose(first, &uids, &gids).unwrap();
                assert!(uids.overlap(u64::from(bases.uid), None).is_none());
                assert!(gids.overlap(u64::from(bases.gid), None).is_none());
                containers.insert(n, bases);
            };
            (0..300).for_each(|n| create(&mut containers, n + 1));
            gone.iter().for_each(|n| { containers.remove(&(n + 1)); });
            let highest = containers.values().map(|b| b.uid).max().unwrap();
            (300..400).for_each(|n| create(&mut containers, n + 1));
            assert_disjoint(&containers);
            prop_assert!(containers.values().map(|b| b.uid).max().unwrap() <= highest.max(DEFAULT_FIRST + 301 * WIDTH), "freed ranges are used again");
        }
    }

    #[test]
    fn nothing_is_given_below_65536_whatever_vz_conf_says() {
        let none = Taken::with_reserved();
        let chosen = choose(Bases { uid: 0, gid: 0 }, &none, &none).unwrap();
        assert_eq!((chosen.uid, chosen.gid), (WIDTH, WIDTH));
    }

    #[test]
    fn a_full_range_of_numbers_is_an_error_not_a_wrap() {
        let mut uids = Taken::with_reserved();
        uids.add(DEFAULT_FIRST, 1 << 32, Owner::Host("subuid", "all".into()));
        assert_eq!(choose(FIRST, &uids, &Taken::with_reserved()), None);
        assert_eq!(choose(Bases { uid: u32::MAX, gid: u32::MAX }, &Taken::default(), &Taken::default()), None);
    }

    fn node(confs: &[(u32, &str)]) -> (tempfile::TempDir, Node) {
        let dir = tempfile::tempdir().unwrap();
        fs_err::write(dir.path().join("vz.conf"), "").unwrap();
        fs_err::create_dir(dir.path().join("conf")).unwrap();
        fs_err::create_dir(dir.path().join("etc")).unwrap();
        for (ctid, text) in confs {
            fs_err::write(dir.path().join(format!("conf/{ctid}.conf")), text).unwrap();
        }
        let node = Node::open(dir.path()).unwrap();
        (dir, node)
    }

    #[test]
    fn users_of_the_host_and_subordinate_ranges_are_stepped_over() {
        let (dir, node) = node(&[(101, "LOCAL_UID=\"100000\"\nLOCAL_GID=\"100000\"\n")]);
        let etc = dir.path().join("etc");
        fs_err::write(etc.join("passwd"), "root:x:0:0::/:/bin/sh\nbig:x:170000:100::/:/bin/sh\njunk\n").unwrap();
        fs_err::write(etc.join("subgid"), "someone:235000:65536\n").unwrap();
        let (uids, gids) = taken(&node, &etc, Err).unwrap();
        let expected = DEFAULT_FIRST + 4 * WIDTH; // 0: container 101; 1: uid 170000; 2 and 3: the subordinate groups lie across both
        assert_eq!(choose(FIRST, &uids, &gids), Some(Bases { uid: expected, gid: expected }));
    }

    #[test]
    fn a_range_brought_along_is_refused_where_another_container_has_it() {
        let (_dir, node) =
            node(&[(101, "LOCAL_UID=9000000\nLOCAL_GID=9000000\n"), (102, "LOCAL_UID=9065000\nLOCAL_GID=9065000\n")]);
        let bases = Bases { uid: 9_065_000, gid: 9_065_000 };
        assert!(
            matches!(adopt(&node, ct(102), bases), Err(RangeError::Overlap { owner: Owner::Container(c), .. }) if c == ct(101))
        );
        let apart = Bases { uid: 9_200_000, gid: 9_200_000 };
        assert_eq!(adopt(&node, ct(102), apart).unwrap().bases, apart);
    }

    #[test]
    fn a_configuration_that_cannot_be_read_stops_the_search() {
        for text in ["LOCAL_UID=many\n", "LOCAL_UID=\"1000", "LOCAL_GID=-5\n"] {
            let (_dir, node) = node(&[(101, text)]);
            assert!(allocate(&node).is_err(), "{text:?}");
        }
    }
}
