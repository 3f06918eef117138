//! `vzsplit`: a sample configuration that is one of so many equal parts of this node.

use std::io::{BufRead, IsTerminal, Write};
use std::path::Path;

use beancounters::Set;
use clap::{Arg, ArgMatches, Command, value_parser};
use quota::limits::{Limit, SoftHard};

use super::node::{self, Memory};
use super::{Outcome, Report, Trouble, config_dir, said_yes, yes_or_no};
use crate::config::{Document, Node, Settings, params};

/// What an ordinary container weighs: equal ones weigh the same.
const CPUUNITS: u64 = 1000;

pub(super) fn command() -> Command {
    Command::new("vzsplit").about("Make a sample configuration: one of so many equal parts of this node").args([
        Arg::new("number")
            .short('n')
            .long("number")
            .value_name("N")
            .value_parser(value_parser!(u64))
            .help("Into how many containers the node is split; asked for without it"),
        Arg::new("name")
            .short('f')
            .long("name")
            .value_name("NAME")
            .help("Write /etc/vz/conf/ve-NAME.conf-sample; without it the sample is printed"),
        Arg::new("swap")
            .short('s')
            .long("swap")
            .value_name("KB")
            .value_parser(value_parser!(u64))
            .help("Swap space to share, in place of what the node has"),
        yes_or_no("vswap", 'v', "Bound RAM and swap alone (yes, the default), or every beancounter"),
        config_dir(),
    ])
}

pub(super) fn run(matches: &ArgMatches) -> Outcome {
    let node = node::open(matches)?;
    let target = match matches.get_one::<String>("name") {
        Some(name) => Some(unused_sample(&node, name)?),
        None => None,
    };
    let containers = match matches.get_one::<u64>("number") {
        Some(number) => *number,
        None => asked_number()?,
    };
    let mut memory = Memory::read()?;
    if let Some(kib) = matches.get_one::<u64>("swap") {
        memory = memory.with_swap(kib.saturating_mul(1024));
    }
    let share = memory.for_split();
    let simple = said_yes(matches, "vswap").unwrap_or(true);
    let bounds = if simple { share.split_simply(containers) } else { share.split(containers) };
    let bounds = bounds.map_err(|e| Trouble::from_error(&e))?;
    let sample = sample(containers, bounds, &Disk::of(&node)?)?;
    match target {
        Some(path) => {
            sample.save(&path).map_err(|e| Trouble::from_error(&e))?;
            Ok(Report::of(format!("Config {} was created\n", path.display())))
        }
        None => Ok(Report::of(sample.to_bytes())),
    }
}

/// The path of a sample that is not there yet: somebody may have changed one that is.
fn unused_sample(node: &Node, name: &str) -> Result<std::path::PathBuf, Trouble> {
    let path = node.sample_conf(name).ok_or_else(|| Trouble::new(format!("{name:?} is not a name for a sample")))?;
    match fs_err::symlink_metadata(&path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(path),
        Err(e) => Err(Trouble::from_error(&e)),
        Ok(_) => Err(Trouble::new(format!("{} is there already", path.display()))),
    }
}

fn asked_number() -> Result<u64, Trouble> {
    let failed = |e: std::io::Error| Trouble::new(format!("Unable to ask: {e}"));
    if !std::io::stdin().is_terminal() {
        return Err(Trouble::new("The number of containers is not given: -n N"));
    }
    eprint!("Enter the number of containers: ");
    std::io::stderr().flush().map_err(failed)?;
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).map_err(failed)?;
    line.trim().parse().map_err(|_| Trouble::new(format!("{:?} is not a number of containers", line.trim())))
}

/// The size of the file system that private areas are on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Disk {
    kib: u64,
    /// `None` where inodes are made on demand (btrfs).
    inodes: Option<u64>,
}

impl Disk {
    fn of(node: &Node) -> Result<Self, Trouble> {
        let private = Path::new(&node.global.ve_private);
        // As far as it is there: `$VEID` in it never is.
        let there = private.ancestors().skip(1).find(|path| path.exists()).unwrap_or(Path::new("/"));
        let size = rustix::fs::statvfs(there)
            .map_err(|e| Trouble(vec![format!("statvfs({:?})", there.display()), e.to_string()]))?;
        let kib = size.f_blocks.saturating_mul(size.f_frsize) / 1024;
        Ok(Self { kib, inodes: Some(size.f_files).filter(|files| *files > 0) })
    }

    /// The limits of one of so many: the hard ones add up to the disk, the soft ones are a tenth lower.
    fn split(self, containers: u64) -> (SoftHard, SoftHard) {
        let limits = |hard: u64| SoftHard { soft: Limit::Of(hard / 11 * 10), hard: Limit::Of(hard) };
        (limits(self.kib / containers), self.inodes.map_or(SoftHard::UNLIMITED, |inodes| limits(inodes / containers)))
    }
}

fn sample(containers: u64, bounds: Set, disk: &Disk) -> Result<Document, Trouble> {
    let (space, inodes) = disk.split(containers);
    let settings = Settings {
        onboot: Some(false),
        bounds,
        diskspace_kib: Some(space),
        diskinodes: Some(inodes),
        quotatime_s: Some(0),
        cpuunits: Some(CPUUNITS),
        ..Settings::default()
    };
    let mut document =
        Document::parse(format!("# One of {containers} equal parts of a node, made by vzsplit.\n").as_bytes())
            .map_err(|e| Trouble::from_error(&e))?;
    for param in params::all() {
        if let Some((key, value)) = param.keys.first().zip(param.render(&settings)) {
            document.set(key, &value).map_err(|e| Trouble::new(format!("{key}: {e}")))?;
        }
    }
    Ok(document)
}

#[cfg(test)]
mod tests {
    use super::*;
    use beancounters::split;

    const DISK: Disk = Disk { kib: 100 << 20, inodes: Some(6_553_600) };
    const NODE: split::Node = split::Node { ram_bytes: 8 << 30, swap_bytes: 4 << 30, lowmem_bytes: 8 << 30 };

    fn text(bounds: Set, disk: &Disk) -> String {
        String::from_utf8(sample(10, bounds, disk).unwrap().to_bytes()).unwrap()
    }

    #[test]
    fn a_sample_of_the_simple_mode() {
        assert_eq!(
            text(NODE.split_simply(10).unwrap(), &DISK),
            "# One of 10 equal parts of a node, made by vzsplit.\n\
             ONBOOT=\"no\"\nPHYSPAGES=\"0:208435\"\nSWAPPAGES=\"0:104857\"\nCPUUNITS=\"1000\"\n\
             DISKSPACE=\"9532500:10485760\"\nDISKINODES=\"595780:655360\"\nQUOTATIME=\"0\"\n"
        );
    }

    #[test]
    fn a_sample_with_every_beancounter() {
        insta::assert_snapshot!(text(NODE.split(10).unwrap(), &Disk { inodes: None, ..DISK }));
    }

    #[test]
    fn a_sample_that_is_there_is_not_written_over() {
        let dir = tempfile::tempdir().unwrap();
        fs_err::create_dir(dir.path().join("conf")).unwrap();
        fs_err::write(dir.path().join("vz.conf"), "").unwrap();
        fs_err::write(dir.path().join("conf/ve-mine.conf-sample"), "").unwrap();
        let node = Node::open(dir.path()).unwrap();
        assert!(unused_sample(&node, "mine").is_err());
        assert!(unused_sample(&node, "../mine").is_err());
        assert!(unused_sample(&node, "other").unwrap().ends_with("conf/ve-other.conf-sample"));
    }
}
