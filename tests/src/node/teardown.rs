//! Removing a node that its own commands could not, or did not, remove. Only what bears its name or lies in its
//! directory is touched; everything found here is a leak.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use procfs::process::{MountInfo, Process, all_processes};

use crate::program::capture;
use crate::wait::wait_until;

/// Processes first, for they hold the rest; the directory itself goes with its `TempDir`.
pub(super) fn by_force(directory: &Path, name: &str) -> Vec<String> {
    let mut left = Vec::new();
    kill_processes(directory, name, &mut left);
    remove_cgroups(name, &mut left);
    unmount(directory, &mut left);
    detach_loop_devices(directory, &mut left);
    delete_links(name, &mut left);
    delete_tables(name, &mut left);
    left
}

/// Processes in a cgroup of this name, and those whose environment or arguments name this directory: monitors, and whatever else
/// our commands started.
pub(crate) fn processes(directory: &Path, name: &str) -> Vec<Process> {
    let all = all_processes().into_iter().flatten().flatten();
    all.filter(|process| process.pid != std::process::id() as i32 && belongs(process, directory, name)).collect()
}

fn kill_processes(directory: &Path, name: &str, left: &mut Vec<String>) {
    let ours = || processes(directory, name);
    left.extend(ours().iter().map(|process| format!("process {} {}", process.pid, command_of(process))));
    let gone = wait_until(Duration::from_secs(10), || {
        let processes = ours();
        for process in &processes {
            // Fails only for one that has just ended.
            let _ = kill(Pid::from_raw(process.pid), Signal::SIGKILL);
        }
        processes.is_empty()
    });
    if !gone {
        left.push("processes that no signal ends".to_owned());
    }
}

fn belongs(process: &Process, directory: &Path, name: &str) -> bool {
    if process.stat().is_ok_and(|stat| matches!(stat.state, 'Z' | 'X')) {
        return false; // dead, whoever its parent is
    }
    let mark = directory.as_os_str().as_encoded_bytes();
    let in_cgroup = process.cgroups().is_ok_and(|cgroups| {
        cgroups.into_iter().any(|cgroup| Path::new(&cgroup.pathname).components().any(|part| part.as_os_str() == name))
    });
    let names_it = |text: &OsStr| text.as_encoded_bytes().windows(mark.len()).any(|part| part == mark);
    in_cgroup
        || process.environ().is_ok_and(|environ| environ.values().any(|value| names_it(value)))
        || process.cmdline().is_ok_and(|words| words.iter().any(|word| names_it(word.as_ref())))
}

fn command_of(process: &Process) -> String {
    process.cmdline().unwrap_or_default().join(" ")
}

fn mounts() -> Vec<MountInfo> {
    let own = Process::myself().and_then(|process| process.mountinfo());
    own.map(|mounts| mounts.into_iter().collect()).unwrap_or_default()
}

/// In every hierarchy, whichever the host has.
fn remove_cgroups(name: &str, left: &mut Vec<String>) {
    let hierarchies = mounts().into_iter().filter(|mount| matches!(mount.fs_type.as_str(), "cgroup" | "cgroup2"));
    for top in hierarchies.map(|mount| mount.mount_point.join(name)).filter(|top| top.exists()) {
        // The parent of its containers' cgroups is the node's own, like its directory; what is in it is not.
        let entries = fs_err::read_dir(&top).into_iter().flatten().flatten();
        // And so is that of its monitors, while they are gone.
        let children = entries.map(|e| e.path()).filter(|p| p.is_dir() && !p.ends_with("monitors"));
        left.extend(children.map(|child| format!("cgroup {}", child.display())));
        if !wait_until(Duration::from_secs(5), || remove_tree(&top)) {
            left.push(format!("cgroup {} that cannot be removed", top.display()));
        }
    }
}

/// Directories only: the files of a cgroup go with it.
fn remove_tree(top: &Path) -> bool {
    let entries = fs_err::read_dir(top).into_iter().flatten().flatten();
    let children: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    children.iter().all(|child| remove_tree(child)) && fs_err::remove_dir(top).is_ok()
}

fn unmount(directory: &Path, left: &mut Vec<String>) {
    for mount in mounts().into_iter().rev().filter(|mount| mount.mount_point.starts_with(directory)) {
        left.push(format!("mount {} ({})", mount.mount_point.display(), mount.fs_type));
        if let Err(errno) = umount2(&mount.mount_point, MntFlags::MNT_DETACH) {
            left.push(format!("mount {} that cannot be undone: {errno}", mount.mount_point.display()));
        }
    }
}

fn detach_loop_devices(directory: &Path, left: &mut Vec<String>) {
    for (device, file) in crate::snapshot::loop_devices().into_iter().filter(|(_, file)| file.starts_with(directory)) {
        left.push(format!("loop device {device} of {}", file.display()));
        let mut command = Command::new("losetup");
        command.args(["--detach", &format!("/dev/{device}")]);
        left.extend(capture(command).err().map(|error| error.to_string()));
    }
}

fn delete_links(name: &str, left: &mut Vec<String>) {
    let entries = fs_err::read_dir("/sys/class/net").into_iter().flatten().flatten();
    let links = entries.filter_map(|entry| entry.file_name().into_string().ok());
    for link in links.filter(|link| link.starts_with(name)) {
        left.push(format!("interface {link}"));
        let mut command = Command::new("ip");
        command.args(["link", "delete", &link]);
        // Its peer, deleted a moment ago, may have taken it along.
        drop(capture(command));
    }
}

fn delete_tables(name: &str, left: &mut Vec<String>) {
    let mut list = Command::new("nft");
    list.args(["list", "tables"]);
    let tables = capture(list).unwrap_or_default(); // no nft: nobody has made a table
    for table in tables.lines().filter_map(|line| line.strip_prefix("table ")) {
        let Some((family, table)) = table.split_once(' ').filter(|(_, table)| table.contains(name)) else { continue };
        // One for each node, made by the first container with an address and kept: no leak.
        let mut command = Command::new("nft");
        command.args(["delete", "table", family, table]);
        left.extend(capture(command).err().map(|error| error.to_string()));
    }
}
