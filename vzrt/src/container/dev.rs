//! `/dev`: a tmpfs of the container's own, with the few devices it is granted bound in from the host, pseudo-terminals of its own, and a
//! console whose other end the monitor holds.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::unistd::Pid;
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, major, minor, openat2, symlinkat};
use rustix::mount::{OpenTreeFlags, open_tree};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt};

use super::mounts::{attach, target_dir};
use crate::error::{Call, Failed};
use crate::plan::IdRange;
use crate::{rootfs, sys};

/// Device files as detached mounts, by their names below `/dev`.
pub(crate) struct HostNodes(Vec<(String, OwnedFd)>);

/// Takes hold of the host's own device files. Runs before the pivot, in a namespace where `/dev` is still the host's.
pub(super) fn hold_host_nodes(names: &[String]) -> Result<HostNodes, Failed> {
    names
        .iter()
        .map(|name| {
            let path = format!("/dev/{name}");
            let flags =
                OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
            open_tree(CWD, path.as_str(), flags).call(|| format!("open_tree({path})")).map(|fd| (name.clone(), fd))
        })
        .collect::<Result<_, _>>()
        .map(HostNodes)
}

/// Nodes of the container's own for devices it is granted, as detached mounts. Called by the host's root.
///
/// A bind of the host's node would leave it with the host's owner and mode, which for most devices keep everybody else out; and the
/// container's own mknod(2) makes no node that works. So the node is made in the run directory, belonging to the container's root, and the
/// `nodev` of that file system is taken off the one mount that goes inside.
pub(crate) fn own_nodes(run_dir: &Path, ids: IdRange, names: &[String]) -> Result<HostNodes, Failed> {
    names
        .iter()
        .map(|name| own_node(run_dir, ids, name).map(|fd| (name.clone(), fd)))
        .collect::<Result<_, _>>()
        .map(HostNodes)
}

/// What `udev` of every distribution gives these two: both drivers look at the rights of who uses them, and rootless containers, `sshfs` and
/// the like are run by ordinary users. Any other device is for root until root inside says otherwise. The host's own mode tells nothing: it is
/// about the host's users, and without `udev` it is the kernel's 0600.
fn mode_of(device: &str) -> u32 {
    if matches!(device, "fuse" | "net/tun") { 0o666 } else { 0o660 }
}

fn own_node(run_dir: &Path, ids: IdRange, name: &str) -> Result<OwnedFd, Failed> {
    let host = format!("/dev/{name}");
    let st = rustix::fs::lstat(host.as_str()).call(|| format!("lstat({host})"))?;
    let kind = FileType::from_raw_mode(st.st_mode);
    if !matches!(kind, FileType::CharacterDevice | FileType::BlockDevice) {
        return Err(Failed::new(format!("lstat({host})"), "it is not a device"));
    }
    let path = run_dir.join(format!("dev-{}", name.replace('/', "-")));
    let call = |what: &str| format!("{what}({})", path.display());
    match rustix::fs::unlink(&path) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => {}
        Err(e) => return Err(e).call(|| call("unlink")),
    }
    let mode = Mode::from_raw_mode(mode_of(name));
    rustix::fs::mknodat(CWD, &path, kind, mode, st.st_rdev).call(|| call("mknod"))?;
    rustix::fs::chmodat(CWD, &path, mode, rustix::fs::AtFlags::empty()).call(|| call("chmod"))?;
    let (uid, gid) = (rustix::fs::Uid::from_raw(ids.uid), rustix::fs::Gid::from_raw(ids.gid));
    rustix::fs::chown(&path, Some(uid), Some(gid)).call(|| call("chown"))?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
    let node = open_tree(CWD, &path, flags).call(|| call("open_tree"))?;
    sys::mount_clear_flags(node.as_fd(), libc::MOUNT_ATTR_NODEV).call(|| call("mount_setattr"))?;
    Ok(node)
}

/// A node in the `/dev` of a container of which nothing has run yet, that names a file system for tools and is no device: the kernel opens none on a
/// file system of the container's. Called by the host's root, who alone can make it.
pub(crate) fn make_name_of_file_system(
    first_process: Pid,
    ids: IdRange,
    name: &str,
    device: u64,
) -> Result<(), Failed> {
    let path = format!("/proc/{first_process}/root/dev");
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dev = rustix::fs::open(path.as_str(), flags, Mode::empty()).call(|| format!("open({path})"))?;
    let _owner = rootfs::FileIds::of(ids)?;
    rustix::fs::mknodat(&dev, name, FileType::BlockDevice, Mode::RUSR | Mode::WUSR, device)
        .call(|| format!("mknod({path}/{name})"))
}

/// Binds them into the container's `/dev`. A bind keeps the host's owner and mode untouched (a runtime that chowned its standard input once
/// left hosts with a /dev/null owned by a container); in the container their owner shows as nobody.
pub(super) fn bind_nodes(root: BorrowedFd, nodes: &HostNodes) -> Result<(), Failed> {
    for (name, node) in &nodes.0 {
        let target = new_file(root, name)?;
        attach(node, target.as_fd(), Path::new(name))?;
    }
    Ok(())
}

/// Binds host devices, held outside, into the `/dev` of a container that runs, by a process that has joined its namespaces. What lies at the
/// name already is the container's; a file is covered, anything else is refused by the open.
pub(crate) fn bind_into_running(nodes: &HostNodes) -> Result<(), Failed> {
    let root = crate::rootfs::hold_dir(CWD, "/")?;
    bind_nodes(root.as_fd(), nodes)
}

/// An empty file in the container's `/dev`, to mount something on.
fn new_file(root: BorrowedFd, name: &str) -> Result<OwnedFd, Failed> {
    if let Some((dir, _)) = name.rsplit_once('/') {
        target_dir(root, &Path::new("dev").join(dir))?;
    }
    let path = format!("dev/{name}");
    openat2(
        root,
        path.as_str(),
        // NONBLOCK: in a container that runs there may be a FIFO.
        OFlags::CREATE | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC,
        Mode::from_raw_mode(0o666),
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS,
    )
    .call(|| format!("create({path} in the container)"))
}

/// The customary links.
pub(super) fn links(root: BorrowedFd) -> Result<(), Failed> {
    let links = [
        ("/proc/self/fd", "fd"),
        ("/proc/self/fd/0", "stdin"),
        ("/proc/self/fd/1", "stdout"),
        ("/proc/self/fd/2", "stderr"),
        ("/proc/kcore", "core"),
        ("pts/ptmx", "ptmx"),
    ];
    let dev = target_dir(root, Path::new("/dev"))?;
    for (to, name) in links {
        symlinkat(to, &dev, name).call(|| format!("symlink(/dev/{name} in the container)"))?;
    }
    Ok(())
}

/// Makes `/dev/console` a pseudo-terminal of the container's own devpts; gives its master.
pub(super) fn console(root: BorrowedFd) -> Result<OwnedFd, Failed> {
    let (master, slave) = open_pty(root)?;
    // AT_EMPTY_PATH: the very file that was opened, whatever its name leads to.
    let bind = open_tree(
        &slave,
        "",
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH,
    )
    .call(|| "open_tree(console)")?;
    let target = new_file(root, "console")?;
    attach(&bind, target.as_fd(), Path::new("/dev/console"))?;
    Ok(master)
}

/// A new pseudo-terminal of the container whose root is given: master, slave.
///
/// Once the container runs its `/dev` may hold anything. What is opened is `dev/pts/ptmx` following no link, checked to be the pty
/// multiplexer (character device 5:2), and the slave comes from the master itself (TIOCGPTPEER, Linux 4.13), never by name.
pub(crate) fn open_pty(root: BorrowedFd) -> Result<(OwnedFd, OwnedFd), Failed> {
    let master = openat2(
        root,
        "dev/pts/ptmx",
        // NONBLOCK: a FIFO in its place must not hang us.
        OFlags::RDWR | OFlags::NOCTTY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK,
        Mode::empty(),
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS,
    )
    .call(|| "open(/dev/pts/ptmx in the container)")?;
    let st = fstat(&master).call(|| "fstat(ptmx)")?;
    let is_ptmx = FileType::from_raw_mode(st.st_mode) == FileType::CharacterDevice
        && (major(st.st_rdev), minor(st.st_rdev)) == (5, 2);
    if !is_ptmx {
        return Err(Failed::new("open(/dev/pts/ptmx in the container)", "it is not the pseudo-terminal multiplexer"));
    }
    rustix::fs::fcntl_setfl(&master, OFlags::empty()).call(|| "fcntl(ptmx)")?;
    unlockpt(&master).call(|| "unlockpt()")?;
    let slave = ioctl_tiocgptpeer(&master, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)
        .call(|| "ioctl(TIOCGPTPEER)")?;
    Ok((master, slave))
}
