//! What the machine does between two power cuts: it checks what the last one left of the containers' disk quota, and writes until the next.
//!
//! Container 101 is bounded by project quota, 102 is an image with limits of users, which grows all the time, 103 a ploop image with such. They are written
//! to, and their limits are changed, when power goes; 104 is made and destroyed all the time. Of 105 and 106, and of 107 and 108, one has few files and the other many.

mod check;

use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use super::Error;
use crate::containers::store_below;
use crate::wait::wait_until;

/// What the machine says when its writers are at work: from now on power may go.
pub const AT_WORK: &str = "== writing";

/// On the disk that outlives the machine, run directory included: a start that was cut off is found by the next boot.
const NODE: &str = "/vz/node";
const MADE: &str = "/vz/node/made";

/// Between these the limits of container 101 are changed: options of `vzctl set`.
const BOUNDS_OF_101: [&str; 2] =
    ["--diskspace 60M:66M --diskinodes 3000:3300", "--diskspace 70M:77M --diskinodes 3500:3850"];
/// Between these that of container 103: the image grows once, then its balloon does the rest.
const BOUNDS_OF_103: [&str; 2] = ["128M", "160M"];
/// The same of user 1001 of the containers 102 and 103: KiB and inodes, soft and hard. User 1000 has the first ones.
const USER_LIMITS: [[u64; 4]; 2] = [[6000, 8000, 400, 500], [9000, 12_000, 600, 700]];
/// Files of the containers 106 and 108.
const MANY: u32 = 40_000;

/// Makes, appends, truncates, allocates, links, renames and removes, writes to what has no name any more, and waits for the disk at times; `OWN` changes owners.
/// What it makes stays until the next boot has looked at it.
const WRITER: &str = "rm -rf /data/$N; mkdir -p /data/$N; cd /data/$N; i=0; while :; do i=$((i+1)); \
    dd if=/dev/zero bs=4k count=$((i%50)) >> log; [ $((i%9)) != 0 ] || truncate -s 5000 log; [ $((i%20)) != 0 ] || : > log; \
    fallocate -l $((i%40*50000+1)) taken; [ $((i%7)) != 0 ] || rm taken; \
    for j in 1 2 3 4 5 6; do echo $i > s$j; ln s$j l$j; mv s$j r$j; OWN; done; \
    mkdir d$i; ln -s nowhere d$i/x; mv d$i d; rm -r d; rm -f l?; [ $((i%3)) != 0 ] || rm -f r?; \
    exec 3> gone; rm gone; dd if=/dev/zero bs=4k count=20 >&3; \
    [ $((i%6)) != 0 ] || dd if=/dev/zero of=synced bs=4k count=9 conv=fsync; done 2> /dev/null";
const OWN: &str = "chown $((1000+(i+j)%2)):$((1000+i%2)) r$j; chown $((1000+i%2)) log taken";
/// Runs into the limit again and again, and stays there for a moment.
const FILLER: &str =
    "while :; do dd if=/dev/zero of=/data/fill bs=256k; fsync /data/fill; sleep 1; rm /data/fill; done 2> /dev/null";

/// One command, by the shell; `Err` has all that it said.
fn sh(line: &str) -> Result<String, Error> {
    let output = shell(line).output()?;
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() {
        return Ok(said(&output.stdout));
    }
    Err(Error::Wrong(format!("{line}: {}: {} {}", output.status, said(&output.stdout), said(&output.stderr))))
}

fn shell(line: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", line]).stdin(Stdio::null());
    command
}

fn require(holds: bool, what: impl FnOnce() -> String) -> Result<(), Error> {
    if holds { Ok(()) } else { Err(Error::Wrong(what())) }
}

/// Makes the containers if there are none, checks those there are, sets the writers to work, and waits for the end. The environment has
/// `VZ_CONFDIR`, and `vzctl` in its path.
///
/// # Errors
/// [`Error::Wrong`] with what the power cut has broken.
pub fn run(out: &mut dyn Write) -> Result<(), Error> {
    if Path::new(MADE).exists() {
        check::recovered()?;
    } else {
        make()?;
    }
    check::all(out)?;
    let before_kib = check::configured_kib(102)?;
    let mut children = write_until_the_end()?;
    let grown = || check::configured_kib(102).is_ok_and(|kib| kib > before_kib);
    require(wait_until(Duration::from_secs(60), grown), || "102 does not grow".to_owned())?;
    for child in &mut children {
        require(child.try_wait()?.is_none(), || "a writer has ended".to_owned())?;
    }
    writeln!(out, "{AT_WORK}")?;
    thread::sleep(Duration::from_secs(120));
    Err(Error::Wrong("power was not cut".to_owned()))
}

/// Writers in each container, and who changes limits, makes and destroys from outside.
fn write_until_the_end() -> Result<Vec<Child>, Error> {
    let mut lines = Vec::new();
    for (ctid, own) in [(101, ":"), (102, OWN), (103, OWN)] {
        let writers = (1..=3).map(|n| WRITER.replace("$N", &n.to_string()).replace("OWN", own));
        lines.extend(writers.map(|line| format!("exec vzctl exec {ctid} '{line}'")));
    }
    // The limit of the project, of the user, and of the image.
    for (ctid, who) in [(101, "sh"), (102, "su u1000"), (103, "sh")] {
        lines.push(format!("exec vzctl exec {ctid} 'mkdir -p -m 777 /data; {who} -c \"{FILLER}\"'"));
    }
    let forever = |lines: &[String]| format!("while :; do {}; done > /dev/null 2>&1", lines.join("; "));
    let set = |ctid: u32, bounds: &str| format!("vzctl set {ctid} {bounds} --save --wait-lock 30");
    lines.push(forever(&BOUNDS_OF_101.map(|bounds| set(101, bounds))));
    let larger = forever(&["n=$((n+1))".to_owned(), set(102, "--diskspace ${n}M")]);
    lines.push(format!("n={}; {larger}", check::configured_kib(102)? / 1024));
    // Files may take more than the smaller one: then nothing changes.
    lines.push(forever(&BOUNDS_OF_103.map(|size| set(103, &format!("--diskspace {size}")))));
    let limits = |limits| format!("{}; {}", limit(102, 1001, limits), limit(103, 1001, limits));
    lines.push(forever(&USER_LIMITS.map(limits)));
    lines.push(forever(&["vzctl create 104 --ostemplate busybox --diskspace 20M; vzctl destroy 104".to_owned()]));
    lines.iter().map(|line| Ok(shell(line).spawn()?)).collect()
}

/// The command that sets a user's limits.
fn limit(ctid: u32, user: u32, [soft, hard, soft_files, hard_files]: [u64; 4]) -> String {
    format!("vzquota setlimit2 {ctid} -u {user} -b {soft} -B {hard} -i {soft_files} -I {hard_files}")
}

fn make() -> Result<(), Error> {
    let etc = crate::checkout().join("vzctl/etc");
    sh(&format!("rm -rf {NODE}; cd /; mkdir -p {NODE}; cp -r {} {NODE}/etc", etc.display()))?;
    sh(&format!("cd {NODE}; mkdir -p etc/names lock run root private dump"))?;
    let store = store_below(Path::new("/vz"));
    fs_err::write(
        Path::new(NODE).join("etc/vz.conf"),
        format!(
            "LOCKDIR={NODE}/lock\nDUMPDIR={NODE}/dump\nLOGGING=no\nVERBOSE=0\nDISK_QUOTA=yes\nTEMPLATE={}\nVE_ROOT={NODE}/root/$VEID\n\
             VE_PRIVATE={NODE}/private/$VEID\nCONFIGFILE=\"basic\"\nVE_LAYOUT=simfs\nLOCAL_UID=100000\nLOCAL_GID=100000\n\
             VZ_RUNDIR={NODE}/run\nVZ_CGROUP=cut\nVZ_IFPREFIX=cut\n",
            store.display()
        ),
    )?;
    sh("vzctl check | grep '^power cut  *yes'")?;
    sh(&format!(
        "vzctl create 101 --ostemplate busybox {} && vzctl set 101 --quotatime 86400 --save",
        BOUNDS_OF_101[0]
    ))?;
    sh("vzctl create 102 --ostemplate busybox --diskspace 200M --quotaugidlimit 20")?;
    let size = BOUNDS_OF_103[0];
    sh(&format!("vzctl create 103 --ostemplate busybox --layout ploop --diskspace {size} --quotaugidlimit 20"))?;
    for ctid in [102, 103] {
        sh(&format!("vzctl start {ctid}"))?;
        let accounts = [1000, 1001].map(|user| format!("echo u{user}:x:{user}:{user}::/tmp:/bin/sh >> /etc/passwd"));
        sh(&format!("vzctl exec2 {ctid} '{}; mkdir -p /tmp; chmod 1777 /tmp'", accounts.join(";")))?;
        for user in [1000, 1001] {
            sh(&limit(ctid, user, USER_LIMITS[0]))?;
        }
        sh(&format!("vzctl stop {ctid} --fast"))?;
    }
    for (ctid, layout, files) in [(105, "simfs", 10), (106, "simfs", MANY), (107, "ploop", 10), (108, "ploop", MANY)] {
        sh(&format!("vzctl create {ctid} --ostemplate busybox --layout {layout} --diskspace 512M --diskinodes 50000"))?;
        sh(&format!("vzctl start {ctid}"))?;
        let files = format!("mkdir /many; cd /many; i=0; while [ $i -lt {files} ]; do echo $i > $i; i=$((i+1)); done");
        sh(&format!("vzctl exec2 {ctid} '{files}' && vzctl stop {ctid} --fast"))?;
    }
    fs_err::write(MADE, "")?;
    sh("sync")?;
    Ok(())
}
