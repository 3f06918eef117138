//! The files of beancounters as a tree: `user_beancounters`, `bc/resources`, and for each container `bc/101/resources`.
//!
//! One tree for two places: the host has all running containers in it, a container has itself. The host's has
//! `fairsched`, `vz/vestat` and `vz/vzquota` too. Formats: [`beancounters::format`].

use std::fmt;

use beancounters::{Counters, format};

use super::schedule::{self, Schedule};
use crate::Ctid;
use crate::view::fuse::{self, Node, Tree};

/// For the owner, who is root, alone: so OpenVZ's kernel gave them (K6 `kernel/bc/proc.c`).
const SECRET: u16 = 0o400;

/// Anybody may see that they are there.
const OPEN: u16 = 0o555;

const USER_BEANCOUNTERS: u64 = fuse::ROOT + 1;
const BC: u64 = fuse::ROOT + 2;
const RESOURCES: u64 = fuse::ROOT + 3;

/// From here on each container has two numbers: its directory's, and that of the one file in it.
const CONTAINERS: u64 = fuse::ROOT + 5;

/// The host's alone come after all containers.
const FAIRSCHED: u64 = 1 << 40;
const VZ: u64 = FAIRSCHED + 1;
const VESTAT: u64 = FAIRSCHED + 2;
const VZQUOTA: u64 = FAIRSCHED + 3;

/// Whose counters there are.
pub(crate) trait Register {
    /// Whether it is the host's, which also tells of CPU time, weights and disk quota: there are files of them then.
    const OF_THE_HOST: bool = false;

    /// Containers that may be running, by ascending numbers.
    fn numbers(&mut self) -> Vec<Ctid>;
    /// Whether one is.
    fn is_running(&mut self, ctid: Ctid) -> bool;
    /// Its rows; `None` when it is not, or they can't be told.
    fn rows(&mut self, ctid: Ctid) -> Option<Counters>;
    /// Its CPU time and weight; `None` when it is not running, or they can't be told.
    fn schedule(&mut self, _ctid: Ctid) -> Option<Schedule> {
        None
    }
    /// What `vz/vzquota` says.
    fn disks(&mut self) -> Option<String> {
        None
    }
}

/// The tree over a register.
#[derive(Debug)]
pub(crate) struct Table<R>(R);

/// What bears a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Root,
    UserBeancounters,
    Bc,
    Resources,
    Container(Ctid),
    ResourcesOf(Ctid),
    Fairsched,
    Vz,
    Vestat,
    Vzquota,
}

impl Place {
    fn of(number: u64) -> Option<Self> {
        let container = |at: u64| u32::try_from(at / 2).ok().and_then(|n| Ctid::try_from(n).ok());
        match number {
            fuse::ROOT => Some(Self::Root),
            USER_BEANCOUNTERS => Some(Self::UserBeancounters),
            BC => Some(Self::Bc),
            RESOURCES => Some(Self::Resources),
            FAIRSCHED => Some(Self::Fairsched),
            VZ => Some(Self::Vz),
            VESTAT => Some(Self::Vestat),
            VZQUOTA => Some(Self::Vzquota),
            _ => match number.checked_sub(CONTAINERS)? {
                at if at % 2 == 0 => container(at).map(Self::Container),
                at => container(at).map(Self::ResourcesOf),
            },
        }
    }

    fn number(self) -> u64 {
        match self {
            Self::Root => fuse::ROOT,
            Self::UserBeancounters => USER_BEANCOUNTERS,
            Self::Bc => BC,
            Self::Resources => RESOURCES,
            Self::Fairsched => FAIRSCHED,
            Self::Vz => VZ,
            Self::Vestat => VESTAT,
            Self::Vzquota => VZQUOTA,
            Self::Container(ctid) => CONTAINERS + 2 * u64::from(ctid.get()),
            Self::ResourcesOf(ctid) => CONTAINERS + 2 * u64::from(ctid.get()) + 1,
        }
    }
}

impl<R: Register> Table<R> {
    pub(crate) fn new(register: R) -> Self {
        Self(register)
    }

    /// Whose they are.
    pub(crate) fn register(&mut self) -> &mut R {
        &mut self.0
    }

    fn all(&mut self) -> Vec<(u32, Counters)> {
        let numbers = self.0.numbers();
        numbers.into_iter().filter_map(|ctid| Some((ctid.get(), self.0.rows(ctid)?))).collect()
    }
}

impl<R: Register> Table<R> {
    fn schedules(&mut self) -> Vec<(u32, Schedule)> {
        let numbers = self.0.numbers();
        numbers.into_iter().filter_map(|ctid| Some((ctid.get(), self.0.schedule(ctid)?))).collect()
    }
}

impl<R: Register> Tree for Table<R> {
    fn node(&self, number: u64) -> Option<Node> {
        Some(match Place::of(number)? {
            Place::Fairsched | Place::Vz | Place::Vestat | Place::Vzquota if !R::OF_THE_HOST => return None,
            Place::Fairsched | Place::Vestat | Place::Vzquota => Node::file(SECRET),
            Place::Root | Place::Bc | Place::Vz => Node::directory(OPEN),
            Place::UserBeancounters | Place::Resources => Node::file(SECRET),
            Place::Container(_) => Node { stays: false, ..Node::directory(OPEN) },
            Place::ResourcesOf(_) => Node { stays: false, ..Node::file(SECRET) },
        })
    }

    fn entries(&mut self, directory: u64) -> Vec<(String, u64)> {
        let entry = |name: &str, place: Place| (name.to_owned(), place.number());
        match Place::of(directory) {
            Some(Place::Root) => {
                let schedules = [entry("fairsched", Place::Fairsched), entry("vz", Place::Vz)];
                let counters = [entry("user_beancounters", Place::UserBeancounters), entry("bc", Place::Bc)];
                counters.into_iter().chain(schedules.into_iter().filter(|_| R::OF_THE_HOST)).collect()
            }
            Some(Place::Vz) if R::OF_THE_HOST => vec![entry("vestat", Place::Vestat), entry("vzquota", Place::Vzquota)],
            Some(Place::Bc) => {
                let mut numbers = self.0.numbers();
                numbers.retain(|ctid| self.0.is_running(*ctid));
                let containers = numbers.into_iter().map(|ctid| entry(&ctid.to_string(), Place::Container(ctid)));
                [entry("resources", Place::Resources)].into_iter().chain(containers).collect()
            }
            Some(Place::Container(ctid)) => vec![entry("resources", Place::ResourcesOf(ctid))],
            _ => Vec::new(),
        }
    }

    /// A container's directory is found without looking at the others.
    fn find(&mut self, directory: u64, name: &[u8]) -> Option<u64> {
        let named = |entries: Vec<(String, u64)>| {
            entries.into_iter().find_map(|(known, number)| (known.as_bytes() == name).then_some(number))
        };
        match Place::of(directory)? {
            Place::Bc if name == b"resources" => Some(RESOURCES),
            Place::Bc => {
                let ctid: Ctid = std::str::from_utf8(name).ok()?.parse().ok()?;
                // As it is written in the directory, and in no other way.
                let known = ctid.to_string().as_bytes() == name && self.0.is_running(ctid);
                known.then_some(Place::Container(ctid).number())
            }
            Place::Container(ctid) if !self.0.is_running(ctid) => None,
            _ => named(self.entries(directory)),
        }
    }

    fn text(&mut self, file: u64) -> Option<String> {
        match Place::of(file)? {
            Place::UserBeancounters => {
                let all = self.all();
                text(|out| format::user_beancounters(out, all.iter().map(|(id, rows)| (*id, rows))))
            }
            Place::Resources => {
                let all = self.all();
                text(|out| format::bc_resources(out, all.iter().map(|(id, rows)| (*id, rows))))
            }
            Place::ResourcesOf(ctid) => {
                let rows = self.0.rows(ctid)?;
                text(|out| format::bc_id_resources(out, &rows))
            }
            Place::Fairsched | Place::Vestat | Place::Vzquota if !R::OF_THE_HOST => None,
            Place::Fairsched => Some(schedule::fairsched(&self.schedules())),
            Place::Vestat => Some(schedule::vestat(&self.schedules())),
            Place::Vzquota => self.0.disks(),
            Place::Root | Place::Bc | Place::Container(_) | Place::Vz => None,
        }
    }
}

fn text(write: impl FnOnce(&mut String) -> fmt::Result) -> Option<String> {
    let mut text = String::new();
    write(&mut text).ok()?;
    Some(text)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

    use beancounters::{Bound, Counter};

    use super::*;

    /// Containers 101 and 103 run, 102 does not.
    struct Made;

    impl Register for Made {
        const OF_THE_HOST: bool = true;

        fn numbers(&mut self) -> Vec<Ctid> {
            [101, 102, 103].map(|n: u32| n.try_into().unwrap()).to_vec()
        }

        fn is_running(&mut self, ctid: Ctid) -> bool {
            [101, 103].contains(&ctid.get())
        }

        fn rows(&mut self, ctid: Ctid) -> Option<Counters> {
            let row = |r| Counter::new(Bound::new(r, 10, 20), u64::from(ctid.get()), 0, 0);
            self.is_running(ctid).then(|| Counters::new(row))
        }

        fn disks(&mut self) -> Option<String> {
            Some(String::new())
        }
    }

    fn names(table: &mut Table<Made>, directory: u64) -> Vec<String> {
        table.entries(directory).into_iter().map(|(name, _)| name).collect()
    }

    #[test]
    fn what_a_directory_lists_is_found_there_by_the_same_number_and_in_order() {
        let mut table = Table::new(Made);
        let mut pending = vec![fuse::ROOT];
        let mut seen = 0;
        while let Some(directory) = pending.pop() {
            let entries = table.entries(directory);
            assert!(entries.is_sorted_by_key(|(_, number)| *number), "{entries:?}");
            for (name, number) in entries {
                assert_eq!(table.find(directory, name.as_bytes()), Some(number), "{name}");
                assert_eq!(Place::of(number).unwrap().number(), number);
                let node = table.node(number).unwrap();
                assert_eq!(node.directory, table.text(number).is_none(), "{name}");
                assert_eq!(node.mode, if node.directory { 0o555 } else { 0o400 }, "{name}");
                pending.extend(node.directory.then_some(number));
                seen += 1;
            }
        }
        assert_eq!(seen, 4 + 3 + 2 + 2);
    }

    #[test]
    fn only_what_runs_is_there() {
        let mut table = Table::new(Made);
        assert_eq!(names(&mut table, BC), ["resources", "101", "103"]);
        for none in ["102", "104", "0101", "+101", "0", "4294967295", "", "resource"] {
            assert_eq!(table.find(BC, none.as_bytes()), None, "{none}");
        }
        let gone = Place::Container(102.try_into().unwrap());
        assert_eq!(table.find(gone.number(), b"resources"), None);
        assert_eq!(table.text(Place::ResourcesOf(102.try_into().unwrap()).number()), None);
    }

    #[test]
    fn each_file_has_its_own_table() {
        let mut table = Table::new(Made);
        let lines = |text: String| text.lines().count();
        assert_eq!(lines(table.text(USER_BEANCOUNTERS).unwrap()), 2 + 2 * 24);
        assert_eq!(lines(table.text(RESOURCES).unwrap()), 2 + 2 * 21);
        let one = table.text(Place::ResourcesOf(103.try_into().unwrap()).number()).unwrap();
        assert_eq!(lines(one.clone()), 21);
        assert!(one.starts_with("            kmemsize                      103 "), "{one}");
    }

    /// As inside a container.
    struct Bare;

    impl Register for Bare {
        fn numbers(&mut self) -> Vec<Ctid> {
            Vec::new()
        }

        fn is_running(&mut self, _ctid: Ctid) -> bool {
            false
        }

        fn rows(&mut self, _ctid: Ctid) -> Option<Counters> {
            None
        }
    }

    #[test]
    fn who_is_not_the_host_has_none_of_its_files() {
        let mut table = Table::new(Bare);
        assert_eq!(table.entries(fuse::ROOT).len(), 2);
        for (name, number) in [("fairsched", FAIRSCHED), ("vz", VZ), ("vestat", VESTAT), ("vzquota", VZQUOTA)] {
            assert_eq!((table.node(number), table.text(number)), (None, None), "{name}");
            assert_eq!(table.find(fuse::ROOT, name.as_bytes()), None, "{name}");
            assert_eq!(table.entries(number), [], "{name}");
        }
    }

    #[test]
    fn numbers_of_nobody_are_nobodys() {
        let table = Table::new(Made);
        for number in [0, fuse::ROOT + 4, CONTAINERS, CONTAINERS + 1, u64::MAX] {
            assert_eq!(table.node(number), None, "{number}");
        }
    }
}
