//! Making a container's first process, from outside: cgroup, namespaces, id maps, network; the inside is the child's work (`container`).
//!
//! The child starts on its mounts as soon as its ids are mapped, and meanwhile the parent makes the network: neither waits for the other
//! before both are done.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::{Gid, Pid, Uid, setresgid, setresuid};
use oci_spec::runtime::{LinuxNamespaceType, Spec};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use crate::cgroup::{self, CtCgroup, Delegation};
use crate::channel::{Channel, Message, Trouble};
use crate::error::{Call, Failed};
use crate::plan::Plan;
use crate::userquota::UserQuota;
use crate::view::fuse::{Connection, FRESH, Server};
use crate::view::tree::Own;
use crate::{container, counters, hooks, idmap, net, rootfs, sys};

/// A container whose inside is complete and whose first process waits for [`Launched::go`].
pub(crate) struct Launched {
    /// Process id of the first process, on the host.
    pub(crate) pid: Pid,
    /// Its pidfd.
    pub(crate) pidfd: OwnedFd,
    /// Master side of its console.
    pub(crate) console: OwnedFd,
    channel: Channel,
    files: Option<Files>,
    user_quota: Option<UserQuota>,
}

/// What the first process does once all is built. Runs in the child; an init of the container's replaces it and does not come back.
pub(crate) type Payload<'a> = &'a dyn Fn(&Plan, &Channel) -> Result<(), Trouble>;

/// What lives on for who stays with the container.
pub(crate) struct Remains {
    /// Process id of its init.
    pub(crate) pid: Pid,
    /// Its pidfd.
    pub(crate) init: OwnedFd,
    /// Master side of its console.
    pub(crate) console: OwnedFd,
    /// Its files of `/proc` are at the other end.
    pub(crate) connection: Option<Connection>,
    /// Where its system calls ask.
    pub(crate) listener: Option<OwnedFd>,
    /// The quotas of its users and groups.
    pub(crate) user_quota: Option<UserQuota>,
}

/// The files that tell a container of itself, served while it is being built.
struct Files {
    connection: Connection,
    server: Server,
    own: Own,
}

/// Makes everything up to the waiting first process. The root is mounted already. With `network` the container gets its addresses, once
/// nobody has answered for them; with `files` (a connection and its mount) its `/proc` tells of itself.
///
/// On failure what was made is left for `teardown`, which works from the journal: it does so after a crash as well, and two ways of
/// undoing would be one too many.
pub(crate) fn launch(
    plan: &Plan,
    host: &cgroup::Host,
    network: Option<net::Probe>,
    files: Option<(Connection, OwnedFd)>,
    payload: Payload,
) -> Result<Launched, Trouble> {
    // Read while we are the host's root: the child no longer is.
    let script = plan.vz.hooks.start.as_deref().map(hooks::Script::read).transpose()?.flatten();
    let cgroup = limits(plan, host)?;
    counters::begin(plan, &cgroup);
    let entry = cgroup.entry().map_err(|e| Trouble::Limits(chain(&e)))?;
    // By descriptor and detached: the way to it by name is closed to everybody but the host's root.
    let root = rootfs::clone_mounted(&plan.vz.root.mountpoint)?;
    let granted = container::own_nodes(&plan.vz.run_dir, plan.vz.ids, &plan.vz.granted_nodes)?;
    let user_quota = UserQuota::of(plan);
    let (connection, mount) = files.unzip();
    let (ours, theirs) = Channel::pair()?;
    container::forget_caller(&plan.spec)?;
    let child = {
        let _time = TimeNamespace::enter(&plan.spec)?;
        let _owner = NamespaceOwner::become_(plan)?;
        sys::clone3(&sys::Clone {
            namespaces: namespaces(&plan.spec),
            cgroup: Some(entry.cgroup2()),
            ..sys::Clone::default()
        })
        .call(|| "clone3(new namespaces)")?
    };
    let Some(child) = child else {
        // Of the files' connection the child must have no copy: were the parent killed, it would wait for itself to serve them.
        drop((ours, connection));
        run_child(&Birth {
            plan,
            script: script.as_ref(),
            entry: &entry,
            root: &root,
            granted: &granted,
            files: mount.as_ref(),
            tells_of_quotas: user_quota.as_ref().is_some_and(|quota| quota.is_under_overlay),
            channel: &theirs,
            payload,
        });
    };
    drop((theirs, root, mount));
    idmap::write_maps(child.pid.as_raw(), plan.vz.ids)?;
    ours.send(&Message::Mapped, None)?;
    if let Some(probe) = network {
        probe.finish(net::PROBE_WAIT).map_err(network_trouble)?;
        let path = format!("/proc/{}/ns/net", child.pid);
        let netns = std::fs::File::open(&path).call(|| format!("open({path})"))?;
        net::up(netns.as_fd(), &plan.vz.net).map_err(network_trouble)?;
    }
    let serve = |connection: Connection| {
        let own = Own::new(plan.ctid, &plan.vz.run_dir, &cgroup, child.pid.as_raw(), user_quota.clone());
        Ok::<_, Failed>(Files { server: connection.serve(plan.vz.ids, FRESH)?, connection, own })
    };
    let mut files = connection.map(serve).transpose()?;
    match receive(&ours, files.as_mut())? {
        Some((Message::Ready, Some(console))) => {
            if let Some(quota) = &user_quota {
                container::make_name_of_file_system(child.pid, plan.vz.ids, &quota.node, quota.device)?;
            }
            Ok(Launched { pid: child.pid, pidfd: child.pidfd, console, channel: ours, files, user_quota })
        }
        Some((Message::Failed(trouble), _)) => Err(trouble),
        Some((other, _)) => Err(Trouble::Call(format!("the container's first process said {other:?} out of turn"))),
        None => Err(Trouble::Call("the container's first process died while building the inside".into())),
    }
}

impl Launched {
    /// Lets the first process run its payload, and waits until it is another program (or, for a script, until that is done). Gives what
    /// outlives the launch.
    pub(crate) fn go(mut self) -> Result<Remains, Trouble> {
        self.channel.send(&Message::Go, None)?;
        let mut listener = None;
        loop {
            match receive(&self.channel, self.files.as_mut())? {
                Some((Message::Asking, Some(fd))) => listener = Some(fd),
                None | Some((Message::Done, _)) => break,
                Some((Message::Failed(trouble), _)) => return Err(trouble),
                Some((other, _)) => {
                    return Err(Trouble::Call(format!("the container's first process said {other:?} out of turn")));
                }
            }
        }
        let connection = self.files.map(|files| files.connection);
        Ok(Remains {
            pid: self.pid,
            init: self.pidfd,
            console: self.console,
            connection,
            listener,
            user_quota: self.user_quota,
        })
    }
}

/// The next message of the first process, which finds its files served until it has one.
fn receive(channel: &Channel, mut files: Option<&mut Files>) -> Result<Option<(Message, Option<OwnedFd>)>, Failed> {
    while let Some(files) = &mut files {
        let mut fds = [PollFd::new(channel, PollFlags::IN), PollFd::new(&files.server, PollFlags::IN)];
        match poll(&mut fds, None) {
            Err(Errno::INTR) => continue,
            r => r.call(|| "poll()")?,
        };
        let (said, asked) = (!fds[0].revents().is_empty(), !fds[1].revents().is_empty());
        // The files end with the first process, which has then said why.
        let ended =
            asked && files.server.serve(&mut files.own).inspect_err(|e| tracing::debug!("{}", chain(e))).is_err();
        if said || ended {
            break;
        }
    }
    channel.receive()
}

/// Turns an error of the network into what decides the exit code.
pub(crate) fn network_trouble(e: net::NetError) -> Trouble {
    match e.reason() {
        net::NetError::AddressInUse { .. } => Trouble::AddressInUse(chain(&e)),
        _ => Trouble::Network(chain(&e)),
    }
}

/// An error with all its sources, in one line.
pub(crate) fn chain(e: &dyn std::error::Error) -> String {
    let mut text = e.to_string();
    let mut source = e.source();
    while let Some(s) = source {
        text.push_str(": ");
        text.push_str(&s.to_string());
        source = s.source();
    }
    text
}

fn limits(plan: &Plan, host: &cgroup::Host) -> Result<CtCgroup, Trouble> {
    let trouble = |e: cgroup::Error| Trouble::Limits(chain(&e));
    let cgroup = host.container(&plan.vz.cgroup, plan.ctid);
    let mut missing = cgroup.create(&Delegation::to(plan.vz.ids.uid, plan.vz.ids.gid)).map_err(trouble)?;
    if let Some(resources) = plan.spec.linux().as_ref().and_then(|l| l.resources().as_ref()) {
        missing.extend(cgroup.apply(resources).map_err(trouble)?);
    }
    missing.extend(cgroup.weigh(plan.vz.cpu).map_err(trouble)?);
    for unsupported in missing {
        tracing::warn!("Warning: {unsupported}");
    }
    Ok(cgroup)
}

/// The flags of clone3 for the namespaces of the plan. The cgroup namespace is made later, by the child, when it is in its cgroup; the time
/// namespace before, by the parent (see [`TimeNamespace`]).
fn namespaces(spec: &Spec) -> u64 {
    let listed = spec.linux().as_ref().and_then(|l| l.namespaces().as_ref());
    listed.into_iter().flatten().fold(0, |flags, ns| {
        flags
            | match ns.typ() {
                LinuxNamespaceType::User => libc::CLONE_NEWUSER as u64,
                LinuxNamespaceType::Pid => libc::CLONE_NEWPID as u64,
                LinuxNamespaceType::Mount => libc::CLONE_NEWNS as u64,
                LinuxNamespaceType::Network => libc::CLONE_NEWNET as u64,
                LinuxNamespaceType::Ipc => libc::CLONE_NEWIPC as u64,
                LinuxNamespaceType::Uts => libc::CLONE_NEWUTS as u64,
                LinuxNamespaceType::Cgroup | LinuxNamespaceType::Time => 0,
            }
    })
}

/// A time namespace whose boot is now, for the children made while this lives.
///
/// Offsets can be written only before the first process is in the namespace, so clone3 can't make it: unshare(2) makes one for children,
/// the offsets are written, and after the clone the parent's further children are put back into the host's.
struct TimeNamespace(Option<std::fs::File>);

impl TimeNamespace {
    fn enter(spec: &Spec) -> Result<Self, Failed> {
        let listed = spec.linux().as_ref().and_then(|l| l.namespaces().as_ref());
        if !listed.into_iter().flatten().any(|ns| ns.typ() == LinuxNamespaceType::Time) {
            return Ok(Self(None));
        }
        let before = std::fs::File::open("/proc/self/ns/time").call(|| "open(/proc/self/ns/time)")?;
        unshare(CloneFlags::from_bits_retain(libc::CLONE_NEWTIME)).call(|| "unshare(CLONE_NEWTIME)")?;
        let guard = Self(Some(before));
        let now = |clock| Duration::try_from(rustix::time::clock_gettime(clock)).unwrap_or_default().as_secs();
        let offsets = format!(
            "monotonic -{} 0\nboottime -{} 0\n",
            now(rustix::time::ClockId::Monotonic),
            now(rustix::time::ClockId::Boottime)
        );
        std::fs::write("/proc/self/timens_offsets", &offsets).call(|| "write(/proc/self/timens_offsets)")?;
        Ok(guard)
    }
}

impl Drop for TimeNamespace {
    fn drop(&mut self) {
        // In the child this runs too, and must not take it out of the namespace again: only the process that entered holds the way back.
        if let Some(before) = self.0.take()
            && nix::unistd::getpid().as_raw() != 1
            && let Err(e) = setns(&before, CloneFlags::from_bits_retain(libc::CLONE_NEWTIME))
        {
            tracing::warn!("setns(host's time namespace): {e}");
        }
    }
}

/// Makes the container's own root uid the owner of the namespaces made while this lives.
///
/// What the kernel counts per user (inotify instances, pending signals, message queues, locked memory) it counts at every level of user
/// namespaces, in the outer ones for the uid that *created* the inner: were that the host's root, one container could take all the host has.
struct NamespaceOwner;

impl NamespaceOwner {
    fn become_(plan: &Plan) -> Result<Self, Failed> {
        let (uid, gid) = (plan.vz.ids.uid, plan.vz.ids.gid);
        setresgid(Gid::from_raw(0), Gid::from_raw(gid), Gid::from_raw(0)).call(|| format!("setresgid(0, {gid}, 0)"))?;
        setresuid(Uid::from_raw(0), Uid::from_raw(uid), Uid::from_raw(0)).call(|| format!("setresuid(0, {uid}, 0)"))?;
        let guard = Self;
        // Leaving effective uid 0 clears the effective capabilities; being born in a cgroup of root's takes one.
        rootfs::effective(|_| true)?;
        Ok(guard)
    }
}

impl Drop for NamespaceOwner {
    fn drop(&mut self) {
        // The child (process 1 of its namespace) takes its ids when they are mapped.
        if nix::unistd::getpid().as_raw() == 1 {
            return;
        }
        let root = (Uid::from_raw(0), Gid::from_raw(0));
        if let Err(e) = setresuid(root.0, root.0, root.0).and_then(|()| setresgid(root.1, root.1, root.1)) {
            tracing::error!("setresuid(0): {e}");
        }
    }
}

/// What the child is born with.
struct Birth<'a> {
    plan: &'a Plan,
    script: Option<&'a hooks::Script>,
    entry: &'a cgroup::Entry,
    root: &'a OwnedFd,
    granted: &'a container::HostNodes,
    files: Option<&'a OwnedFd>,
    tells_of_quotas: bool,
    channel: &'a Channel,
    payload: Payload<'a>,
}

/// The child, from its first instruction. Never returns to the parent's code.
fn run_child(birth: &Birth) -> ! {
    match child(birth) {
        // The payload was no program: this process is the container's init from now on, and does what the first process must.
        Ok(()) => {
            sys::ignore_dead_children();
            if birth.channel.send(&Message::Done, None).is_ok() {
                // It never becomes another program, so nothing would close by itself what it has of the host's.
                sys::close_all();
                loop {
                    nix::unistd::pause();
                }
            }
        }
        // Where nobody listens any more, the journal tells the next command.
        Err(trouble) => drop(birth.channel.send(&Message::Failed(trouble), None)),
    }
    sys::exit_now(1)
}

fn child(birth: &Birth) -> Result<(), Trouble> {
    let Birth { plan, channel, .. } = *birth;
    sys::cloexec_all_above_stderr().call(|| "close_range(CLOEXEC)")?;
    expect(channel, &Message::Mapped)?;
    birth.entry.enter_self().map_err(|e| Trouble::Limits(chain(&e)))?;
    container::become_root()?;
    let console = container::build(plan, birth.root, birth.granted, birth.files, birth.tells_of_quotas)?;
    nix::unistd::setsid().call(|| "setsid()")?;
    channel.send(&Message::Ready, Some(console.as_fd()))?;
    drop(console);
    expect(channel, &Message::Go)?;
    if let Some(script) = birth.script {
        script.run_inside(plan, "starting")?;
    }
    (birth.payload)(plan, channel)
}

fn expect(channel: &Channel, wanted: &Message) -> Result<(), Trouble> {
    match channel.receive()? {
        Some((m, _)) if m == *wanted => Ok(()),
        // The parent is gone, or gave up: so do we. What it had made is in the journal.
        _ => sys::exit_now(1),
    }
}

/// The payload of `start`: becomes the container's init.
pub(crate) fn exec_init(plan: &Plan, channel: &Channel) -> Result<(), Trouble> {
    let paths = &plan.vz.init;
    if !paths.iter().any(|p| nix::unistd::access(p.as_str(), nix::unistd::AccessFlags::X_OK).is_ok()) {
        return Err(Trouble::NoInit(paths.join(", ")));
    }
    container::console_as_stdio()?;
    sys::reset_signals().call(|| "sigprocmask()")?;
    container::confine_asking(plan, |listener| channel.send(&Message::Asking, Some(listener.as_fd())))?;
    // The channel stays: its end tells that execve succeeded.
    sys::close_above_stderr_but(Some(channel.as_fd())).call(|| "close_range()")?;
    let process = plan.spec.process().as_ref();
    if let Some(process) = process {
        be_user(process.user())?;
        let dir = process.cwd();
        nix::unistd::chdir(dir).call(|| format!("chdir({}) inside", dir.display()))?;
    }
    let c_strings = |list: Option<&Vec<String>>| -> Vec<std::ffi::CString> {
        list.into_iter().flatten().filter_map(|s| std::ffi::CString::new(s.as_str()).ok()).collect()
    };
    let argv = c_strings(process.and_then(|p| p.args().as_ref()));
    let env = c_strings(process.and_then(|p| p.env().as_ref()));
    let mut why = String::new();
    for path in paths {
        let Ok(c_path) = std::ffi::CString::new(path.as_str()) else { continue };
        let Err(e) = nix::unistd::execve(&c_path, &argv, &env);
        why = format!("{path}: {e}");
    }
    Err(Trouble::NoInit(why))
}

/// Another user than root, as an image may want its program to be run: without the capabilities that root has.
fn be_user(user: &oci_spec::runtime::User) -> Result<(), Failed> {
    let (uid, gid) = (user.uid().into(), user.gid().into());
    if user.uid() == 0 && user.gid() == 0 {
        return Ok(());
    }
    let go = || {
        nix::unistd::setgroups(&[gid])?;
        nix::unistd::setresgid(gid, gid, gid)?;
        nix::unistd::setresuid(uid, uid, uid)
    };
    go().call(|| format!("setresuid({uid}), setresgid({gid}) inside"))
}

/// The payload of an environment without an init of the container's: reports that it is there, and then only buries the dead.
pub(crate) fn idle(plan: &Plan, _: &Channel) -> Result<(), Trouble> {
    sys::reset_signals().call(|| "sigprocmask()")?;
    container::confine(plan)?;
    Ok(())
}
