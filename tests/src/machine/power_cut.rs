//! What the machine does between two power cuts: it checks what the last one left of the containers' disk quota, and writes until the next.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::Error;
use crate::containers::{DEBIAN_12_TOOLS, store_below};

/// What the machine says when its writers are at work: from now on power may go.
pub const AT_WORK: &str = "== writing";

/// On the disk that outlives the machine, run directory included: a start that was cut off is found by the next boot.
const NODE: &str = "/vz/node";
const MADE: &str = "/vz/node/made";

/// Limits of the users 1000 and 1001 of container 102: KiB and inodes, soft and hard.
const USER_LIMITS: [u64; 4] = [6000, 8000, 400, 500];

/// Appends, truncates, makes, links, renames and removes; `OWN` changes owners where there are users.
const WRITER: &str = "mkdir -p /data/$N; cd /data/$N; i=0; while :; do i=$((i+1)); \
    dd if=/dev/zero bs=4k count=$((i%50)) >> log; [ $((i%9)) != 0 ] || truncate -s 5000 log; [ $((i%20)) != 0 ] || : > log; \
    for j in 1 2 3 4 5 6; do echo $i > s$j; ln s$j l$j; mv s$j r$j; OWN; done; mkdir d$i; mv d$i d; rmdir d; rm -f l? r?; done 2> /dev/null";
const OWN: &str = "chown $((1000 + (i+j)%2)) r$j; chown $((1000 + i%2)) log";

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
    if !Path::new(MADE).exists() {
        make()?;
    }
    let up = fs_err::read_to_string("/proc/uptime")?;
    let begin = Instant::now();
    let checked = check()?;
    let took = begin.elapsed().as_secs_f64();
    writeln!(out, "   start {} s after power on; {checked}; {took:.1} s", up.split(' ').next().unwrap_or_default())?;
    let mut children = Vec::new();
    for (ctid, own) in [(101, ":"), (102, OWN), (103, ":")] {
        for n in 1..=3 {
            let line = WRITER.replace("$N", &n.to_string()).replace("OWN", own);
            children.push(shell(&format!("exec vzctl exec {ctid} '{line}'")).spawn()?);
        }
    }
    let sizes = "for size in 60M 64M; do vzctl set 101 --diskspace $size --save; done";
    let comes_and_goes = "vzctl create 104 --ostemplate busybox --diskspace 20M; vzctl destroy 104";
    for line in [sizes, comes_and_goes] {
        children.push(shell(&format!("while :; do {line}; done > /dev/null")).spawn()?);
    }
    thread::sleep(Duration::from_secs(1));
    for child in &mut children {
        require(child.try_wait()?.is_none(), || "a writer has ended".to_owned())?;
    }
    writeln!(out, "{AT_WORK}")?;
    thread::sleep(Duration::from_secs(120));
    Err(Error::Wrong("power was not cut".to_owned()))
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
    sh("vzctl create 101 --ostemplate busybox --diskspace 60M --diskinodes 3000")?;
    sh(&format!("vzctl create 102 --ostemplate {DEBIAN_12_TOOLS} --diskspace 300M --quotaugidlimit 20"))?;
    sh("vzctl create 103 --ostemplate busybox --layout ploop --diskspace 128M")?;
    sh("vzctl start 102")?;
    let limits = USER_LIMITS.map(|limit| limit.to_string()).join(" ");
    sh(&format!("vzctl exec2 102 'for user in 1000 1001; do setquota -u $user {limits} / || exit 1; done'"))?;
    sh("vzctl stop 102 --fast")?;
    fs_err::write(MADE, "")?;
    sh("sync")?;
    Ok(())
}

/// Says what was found right.
fn check() -> Result<String, Error> {
    sh("vzlist -a")?;
    for ctid in [101, 102, 103] {
        sh(&format!("vzctl start {ctid}"))?;
    }
    let project = projects()?;
    let users = users_of_102()?;
    full()?;
    settled()?;
    // What the journals of images left was applied when they were mounted.
    for (ctid, image) in [(102, "root.img"), (103, "root.hdd/root.hds")] {
        sh(&format!("vzctl stop {ctid} --fast"))?;
        let said = sh(&format!("e2fsck -fn {NODE}/private/{ctid}/{image} 2>&1"))?;
        require(!said.contains("QUOTA"), || format!("e2fsck of {ctid}: {said}"))?;
        sh(&format!("vzctl start {ctid}"))?;
    }
    Ok(format!("101 {project}; 102 {users}; limits refuse; images clean; 104 settled"))
}

/// Space in KiB and inodes of what `find` is asked to look at; a file with two names is one.
fn walk(what: &str) -> String {
    format!("find {what} -printf \"%i %b\\n\" | sort -u | awk \"{{ s += \\$2 }} END {{ print int((s + 1) / 2), NR }}\"")
}

/// Limits and usage of container 101, which the kernel keeps for its project.
fn projects() -> Result<String, Error> {
    let private = format!("{NODE}/private/101");
    let configured = sh(&format!("sed -n 's/^DISKSPACE=\"\\(.*\\)\"/\\1/p' {NODE}/etc/conf/101.conf"))?;
    let listed = sh("vzlist -aHo diskspace.h,diskinodes.h 101")?;
    let mib = |mib: u64| (mib * 1024).to_string();
    let listed: Vec<&str> = listed.split_whitespace().collect();
    require([[&*mib(60), "3000"], [&*mib(64), "3000"]].iter().any(|right| listed == right), || {
        format!("limits of 101: {listed:?}, configured {configured}")
    })?;
    let id = sh(&format!("lsattr -pd {private} | awk '{{ print $1 }}'"))?;
    sh("sync")?;
    let kernels = report("repquota -Pn /vz", &id)?;
    require(kernels[3] == listed[0] && kernels[6] == listed[1], || {
        format!("the kernel's limits of 101: {kernels:?}, listed {listed:?}")
    })?;
    let (counted, taken) = (format!("{} {}", kernels[1], kernels[4]), sh(&walk(&private))?);
    require(counted == taken, || format!("101 uses {counted} for the kernel, {taken} by its files"))?;
    Ok(format!("{counted} of {} {}", listed[0], listed[1]))
}

/// One line of repquota(8) without its marks and grace times: the name; used, soft, hard of space in KiB; the same of inodes.
fn report(command: &str, id: &str) -> Result<Vec<String>, Error> {
    let text = sh(command)?;
    let lines: BTreeMap<&str, Vec<String>> = text
        .lines()
        .filter_map(|line| {
            let mut fields = line.split_whitespace();
            let (name, _marks) = (fields.next()?.strip_prefix('#')?, fields.next()?);
            let numbers = fields.filter(|field| field.bytes().all(|byte| byte.is_ascii_digit())).map(str::to_owned);
            Some((name, std::iter::once(name.to_owned()).chain(numbers).collect()))
        })
        .collect();
    lines
        .get(id)
        .filter(|fields| fields.len() == 7)
        .cloned()
        .ok_or_else(|| Error::Wrong(format!("no line of {id}: {text}")))
}

/// Limits and usage of the users of container 102, as its root sees them.
fn users_of_102() -> Result<String, Error> {
    let mut found = Vec::new();
    for user in ["1000", "1001"] {
        // Raw: a grace time is then a number too, but of another column's width; without it, "none".
        let line = report("vzctl exec2 102 'sync; repquota -un /'", user)?;
        let limits: Vec<String> = USER_LIMITS.iter().map(u64::to_string).collect();
        require([&line[2], &line[3], &line[5], &line[6]].into_iter().eq(limits.iter()), || {
            format!("limits of user {user} of 102: {line:?}")
        })?;
        let counted = format!("{} {}", line[1], line[4]);
        let taken = sh(&format!("vzctl exec2 102 '{}'", walk(&format!("/ -xdev -user {user}"))))?;
        require(counted == taken, || format!("user {user} of 102 uses {counted} for the kernel, {taken} by find"))?;
        found.push(counted);
    }
    Ok(found.join(", "))
}

/// Who is at his limit is refused, with the right error, and has exactly what he may have.
fn full() -> Result<(), Error> {
    for (ctid, who, file, error) in [
        (101, "", "/fill", "quota exceeded"),
        (102, "setpriv --reuid 1000 --clear-groups ", "/tmp/fill", "quota exceeded"),
        (103, "", "/fill", "No space left"),
    ] {
        let dd = format!("{who}dd if=/dev/zero of={file} bs=64k count=4096 2>&1");
        let said = sh(&format!("! vzctl exec2 {ctid} '{dd}' 2>&1"))?;
        require(said.contains(error), || format!("writing beyond the limit of {ctid}: {said}"))?;
        sh(&format!("vzctl exec2 {ctid} 'rm {file}'"))?;
    }
    Ok(())
}

/// Whatever a `create` or `destroy` of container 104 left, both work again and leave nothing.
fn settled() -> Result<(), Error> {
    let listed = sh("vzlist -aHo ctid")?;
    if listed.split_whitespace().any(|ctid| ctid == "104") {
        sh("vzctl destroy 104")?;
    }
    sh("vzctl create 104 --ostemplate busybox --diskspace 20M && vzctl destroy 104")?;
    let left = sh(&format!("ls -A {NODE}/private"))?;
    require(left.split_whitespace().eq(["101", "102", "103"]), || format!("in {NODE}/private: {left}"))
}
