//! What has to be right after a power cut.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use quota::limits::{parse_inodes, parse_space_kib};
use quota::project::{Project, Status};
use quota::quotactl::Kind;
use quota::users::Users;
use quota::{DiskLimits, EffectiveLimits, Limit, SoftHard};

use super::{BOUNDS_OF_101, BOUNDS_OF_103, MANY, NODE, USER_LIMITS, require, sh};
use crate::machine::Error;

const TRACE: &str = "/sys/kernel/tracing";
/// Programs that count or check all files of a file system.
const RESCANS: [&str; 8] = ["e2fsck", "fsck", "fsck.ext4", "quotacheck", "tune2fs", "resize2fs", "debugfs", "find"];
/// What one of many files may be read more of than one of few at a start. The inodes alone are 10 MB.
const READ_MORE_KIB: u64 = 5 << 10;
/// The unit of space, and the map of a file's extents: a limit is reached when no more than both is left.
const SLACK_KIB: u64 = 8;
/// What the files of an image may have beyond the limit that it was made for.
const IMAGE_MORE_KIB: u64 = 1024;

/// The journal of the file system of all private areas was replayed by its mount.
pub(super) fn recovered() -> Result<(), Error> {
    sh("dmesg | grep 'EXT4-fs (vdb): recovery complete'").map(drop)
}

/// Everything; says what it found.
pub(super) fn all(out: &mut dyn Write) -> Result<(), Error> {
    let up = fs_err::read_to_string("/proc/uptime")?;
    writeln!(out, "   up after {} s", up.split(' ').next().unwrap_or_default())?;
    sh("vzlist -a")?;
    let area = PathBuf::from(format!("{NODE}/private/101"));
    let project =
        quota::owned::of(&area).map_err(wrong)?.ok_or_else(|| Error::Wrong("101 has no project".to_owned()))?;
    // Also while nothing has put the configuration in force: the kernel's limits are one or the other, never none.
    let kept = project.status().map_err(wrong)?;
    require(bounds_of_101()?.iter().any(|bounds| holds(&kept, bounds)), || {
        format!("limits of 101 before its start: {kept:?}")
    })?;
    start_without_a_rescan(out)?;
    writeln!(out, "   101: {}", project_of_101(&area, &project, &kept)?)?;
    for ctid in [102, 103] {
        writeln!(out, "   {ctid}: {}", image_of(ctid)?)?;
    }
    full(&project)?;
    settled()?;
    // What the journals of the images left was applied when they were mounted; this is the test's check, of all that vz has never checked.
    for ctid in [102, 103] {
        sh(&format!("vzctl stop {ctid} --fast"))?;
        let said = sh(&format!("e2fsck -fn {} 2>&1", image(ctid).display()))?;
        require(!said.contains("QUOTA"), || format!("e2fsck of {ctid}: {said}"))?;
        sh(&format!("vzctl start {ctid}"))?;
    }
    let complaints = "EXT4-fs (error|warning)|JBD2|[Qq]uota error|I/O error|[Cc]orrupt";
    sh(&format!("! dmesg | grep -E '{complaints}'"))?;
    let journals = sh("dmesg | grep -c 'EXT4-fs (.*): recovery complete' || true")?;
    writeln!(out, "   limits refuse; 104 settled; images clean; {journals} journals replayed")?;
    Ok(())
}

fn wrong(error: impl std::error::Error) -> Error {
    let mut said = error.to_string();
    let mut source = error.source();
    while let Some(why) = source {
        said = format!("{said}: {why}");
        source = why.source();
    }
    Error::Wrong(said)
}

/// Starts all, and shows that nothing was counted: no program ran that does, and an area of many files was read no more of than one of few.
fn start_without_a_rescan(out: &mut dyn Write) -> Result<(), Error> {
    sh(&format!("mountpoint -q {TRACE} || mount -t tracefs tracefs {TRACE}"))?;
    let switch = |to: &str| fs_err::write(format!("{TRACE}/events/sched/sched_process_exec/enable"), to);
    switch("1")?;
    let mut said = Vec::new();
    for ctid in [101, 102, 103] {
        let (seconds, _) = start(ctid)?;
        said.push(format!("{ctid} {seconds:.2} s"));
    }
    for (few, many) in [(105, 106), (107, 108)] {
        let [(few_s, few_kib), (many_s, many_kib)] = [start(few)?, start(many)?];
        require(many_kib < few_kib + READ_MORE_KIB, || {
            format!("the start of {many} has read {many_kib} KiB, that of {few} {few_kib} KiB")
        })?;
        said.push(format!(
            "{few} {few_s:.2} s, {many} with {MANY} files {many_s:.2} s ({few_kib} and {many_kib} KiB read)"
        ));
    }
    switch("0")?;
    let trace = fs_err::read_to_string(format!("{TRACE}/trace"))?;
    let programs = trace.split("filename=").skip(1).filter_map(|rest| rest.split_whitespace().next());
    let names: BTreeSet<&str> = programs.filter_map(|program| program.rsplit('/').next()).collect();
    require(names.contains("vzctl"), || format!("the kernel's trace has not seen the starts: {names:?}"))?;
    require(!RESCANS.iter().any(|rescan| names.contains(rescan)), || format!("programs that were run: {names:?}"))?;
    writeln!(out, "   starts: {}; programs: {}", said.join(", "), names.into_iter().collect::<Vec<_>>().join(" "))?;
    for ctid in [105, 106, 107, 108] {
        sh(&format!("vzctl stop {ctid} --fast"))?;
    }
    Ok(())
}

/// How long the start took, in seconds, and what was read of the disk meanwhile, in KiB.
fn start(ctid: u32) -> Result<(f64, u64), Error> {
    let read_kib = || -> Result<u64, Error> {
        let text = fs_err::read_to_string("/sys/block/vdb/stat")?;
        let sectors = text.split_whitespace().nth(2).and_then(|sectors| sectors.parse::<u64>().ok());
        sectors.map(|sectors| sectors / 2).ok_or(Error::Wrong(text))
    };
    let (before, begin) = (read_kib()?, Instant::now());
    sh(&format!("vzctl start {ctid}"))?;
    Ok((begin.elapsed().as_secs_f64(), read_kib()? - before))
}

/// Both limits that container 101 may have.
fn bounds_of_101() -> Result<[EffectiveLimits; 2], Error> {
    let [small, large] = BOUNDS_OF_101.map(|options| match options.split(' ').collect::<Vec<_>>()[..] {
        [_, space, _, inodes] => bounds(space, inodes),
        _ => Err(Error::Wrong(options.to_owned())),
    });
    Ok([small?, large?])
}

fn bounds(space: &str, inodes: &str) -> Result<EffectiveLimits, Error> {
    let (space_kib, inodes) = (parse_space_kib(space).map_err(wrong)?, parse_inodes(inodes).map_err(wrong)?);
    Ok(DiskLimits { space_kib, inodes, grace_s: Some(86_400) }.effective())
}

fn holds(status: &Status, limits: &EffectiveLimits) -> bool {
    status.space_kib == limits.space_kib && status.inodes == limits.inodes
}

/// A parameter of a container's configuration.
fn configured(ctid: u32, name: &str) -> Result<String, Error> {
    sh(&format!("sed -n 's/^{name}=\"\\(.*\\)\"/\\1/p' {NODE}/etc/conf/{ctid}.conf"))
}

/// Limits and usage of container 101: those of its configuration, of the kernel, of `vzlist` and of its files are the same.
fn project_of_101(area: &Path, project: &Project, kept: &Status) -> Result<String, Error> {
    sh("sync")?;
    let status = project.status().map_err(wrong)?;
    let limits = bounds(&configured(101, "DISKSPACE")?, &configured(101, "DISKINODES")?)?;
    require(bounds_of_101()?.contains(&limits), || format!("101 is configured to {limits:?}"))?;
    require(holds(&status, &limits), || format!("101 is configured to {limits:?} and has {status:?}"))?;
    let grace = project.grace().map_err(wrong)?;
    require((grace.space_s, grace.inodes_s) == (86_400, 86_400), || format!("the grace times are {grace:?}"))?;
    let listed = sh("vzlist -aHo diskspace.s,diskspace.h,diskinodes.s,diskinodes.h 101")?;
    let of = |SoftHard { soft, hard }: SoftHard| [soft.to_string(), hard.to_string()];
    require(listed.split_whitespace().eq([of(status.space_kib), of(status.inodes)].concat()), || {
        format!("vzlist of 101: {listed}, the kernel: {status:?}")
    })?;
    let taken = walk(area)?.into_values().fold(Used::default(), |sum, used| sum.and(used));
    let counted = Used { sectors: status.space_used_kib * 2, inodes: status.inodes_used };
    require(counted == taken, || format!("101 uses {counted:?} for the kernel, {taken:?} by its files"))?;
    let put = if holds(kept, &limits) { "" } else { ", put in force by the start" };
    Ok(format!(
        "{} KiB and {} inodes counted and found, of {} and {}{put}",
        status.space_used_kib, status.inodes_used, status.space_kib, status.inodes
    ))
}

/// What somebody's files take. Sectors are of 512 bytes, as stat(2) has them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Used {
    sectors: u64,
    inodes: u64,
}

impl Used {
    fn and(self, other: Used) -> Used {
        Used { sectors: self.sectors + other.sectors, inodes: self.inodes + other.inodes }
    }
}

/// Its number, its user and its group.
type Inode = (u64, u32, u32);

/// Every inode of a tree and what it takes, the directory itself included, by number and owners: one with two names is one.
fn walk(directory: &Path) -> Result<BTreeMap<Inode, Used>, Error> {
    let mut found = BTreeMap::new();
    let mut ahead = vec![directory.to_owned()];
    while let Some(path) = ahead.pop() {
        let metadata = fs_err::symlink_metadata(&path)?;
        let used = Used { sectors: metadata.blocks(), inodes: 1 };
        found.insert((metadata.ino(), metadata.uid(), metadata.gid()), used);
        if metadata.is_dir() {
            for entry in fs_err::read_dir(&path)? {
                ahead.push(entry?.path());
            }
        }
    }
    Ok(found)
}

fn image(ctid: u32) -> PathBuf {
    let file = if ctid == 103 { "root.hdd/root.hds" } else { "root.img" };
    PathBuf::from(format!("{NODE}/private/{ctid}/{file}"))
}

fn users(ctid: u32) -> Result<(u32, Users), Error> {
    let device = quota::image::attached(&image(ctid)).map_err(wrong)?;
    let device = device.ok_or_else(|| Error::Wrong(format!("the image of {ctid} is not attached")))?;
    Ok((device.number(), Users::on(device.number())))
}

/// Limits and usage of the users and groups of a container in an image, and of 103 the size of that.
fn image_of(ctid: u32) -> Result<String, Error> {
    sh("sync")?;
    let (number, users) = users(ctid)?;
    // One more mount of the same file system, as the container has none that would show all of it.
    let top = Path::new("/run/reference/image");
    sh(&format!("mkdir -p {0} && mount -t ext4 /dev/loop{number} {0}", top.display()))?;
    let (files, size) = (walk(top), size_of(ctid, top));
    sh(&format!("umount {}", top.display()))?;
    let (files, size) = (files?, size?);
    let mut of_users = BTreeMap::<u32, Used>::new();
    let mut of_groups = of_users.clone();
    for ((_, uid, gid), used) in files {
        of_users.entry(uid).and_modify(|sum| *sum = sum.and(used)).or_insert(used);
        of_groups.entry(gid).and_modify(|sum| *sum = sum.and(used)).or_insert(used);
    }
    let mut said = Vec::new();
    for (kind, taken) in [(Kind::User, &of_users), (Kind::Group, &of_groups)] {
        let counted = counted(&users, kind)?;
        require(counted == *taken, || {
            format!("{kind:?}s of {ctid} use {counted:?} for the kernel, {taken:?} by their files")
        })?;
        said.push(format!("{} {kind:?}s", counted.len()));
    }
    for (user, rightly) in [(1000, &USER_LIMITS[..1]), (1001, &USER_LIMITS[..])] {
        let status = users.status(Kind::User, user).map_err(wrong)?;
        let right = rightly.iter().any(|&[soft, hard, soft_files, hard_files]| {
            let of = |soft, hard| SoftHard { soft: Limit::Of(soft), hard: Limit::Of(hard) };
            status.space_kib == of(soft, hard) && status.inodes == of(soft_files, hard_files)
        });
        require(right, || format!("limits of user {user} of {ctid}: {status:?}"))?;
        said.push(format!(
            "user {user}: {} KiB and {} inodes of {} and {}",
            status.space_used_kib, status.inodes_used, status.space_kib, status.inodes
        ));
    }
    Ok(format!("{size}; counted and found the same of {}", said.join(", ")))
}

/// What the kernel has counted for each user or group who has anything.
fn counted(users: &Users, kind: Kind) -> Result<BTreeMap<u32, Used>, Error> {
    let (mut counted, mut from) = (BTreeMap::new(), 0);
    while let Some((id, status)) = users.next(kind, from).map_err(wrong)? {
        if status.inodes_used > 0 || status.space_used_kib > 0 {
            counted.insert(id, Used { sectors: status.space_used_kib * 2, inodes: status.inodes_used });
        }
        let Some(after) = id.checked_add(1) else { break };
        from = after;
    }
    Ok(counted)
}

/// The `DISKSPACE` of a container.
pub(super) fn configured_kib(ctid: u32) -> Result<u64, Error> {
    kib(&configured(ctid, "DISKSPACE")?)
}

fn kib(size: &str) -> Result<u64, Error> {
    match parse_space_kib(size).map_err(wrong)?.hard {
        Limit::Of(kib) => Ok(kib),
        Limit::Unlimited => Err(Error::Wrong(format!("{size} is no size"))),
    }
}

/// Files have what the configuration says. Of 103 that is the image less its balloon, and one of the sizes that were set.
fn size_of(ctid: u32, top: &Path) -> Result<String, Error> {
    let size = configured_kib(ctid)?;
    if ctid == 102 {
        let has = quota::image::usable_kib(&image(102)).map_err(wrong)?;
        let right = size..size + IMAGE_MORE_KIB;
        require(right.contains(&has), || format!("102 is configured to {size} KiB and has {has}"))?;
        return Ok(format!("{size} KiB"));
    }
    let [small, large] = BOUNDS_OF_103.map(kib);
    require([small?, large?].contains(&size), || format!("103 is configured to {size} KiB"))?;
    let length = fs_err::metadata(image(103))?.len() / 1024;
    let balloon = match std::fs::metadata(top.join("balloon")) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => 0,
        balloon => balloon?.len() / 1024,
    };
    require(length - balloon == size, || {
        format!("103 is configured to {size} KiB and has {length} less a balloon of {balloon}")
    })?;
    Ok(format!("{size} KiB with a balloon of {balloon}"))
}

/// Who is at his limit is refused, with the right error, and has exactly what he may have.
fn full(project: &Project) -> Result<(), Error> {
    for ctid in [101, 102, 103] {
        sh(&format!("vzctl exec2 {ctid} 'rm -rf /data/*'"))?;
    }
    fill(101, "sh", || project.status().map_err(wrong))?;
    for ctid in [102, 103] {
        fill(ctid, "su u1000", || users(ctid)?.1.status(Kind::User, 1000).map_err(wrong))?;
    }
    let said = sh("! vzctl exec2 103 'dd if=/dev/zero of=/fill bs=4k 2>&1' 2>&1")?;
    require(said.contains("No space left"), || format!("writing beyond the size of 103: {said}"))?;
    let free_kib = sh("vzctl exec2 103 'sync; df -kP /; rm /fill' | awk 'NR == 2 { print $4 }'")?;
    require(free_kib.parse().is_ok_and(|free: u64| free <= SLACK_KIB), || format!("full 103 has {free_kib} KiB free"))
}

/// Takes all space, then all inodes, of who runs commands by `shell`; `status` tells what the kernel has counted for him.
fn fill(ctid: u32, shell: &str, status: impl Fn() -> Result<Status, Error>) -> Result<(), Error> {
    let refused = |command: &str| {
        let said = sh(&format!("! vzctl exec2 {ctid} '{shell} -c \"{command}\" 2>&1'"))?;
        require(said.contains("quota exceeded"), || format!("writing beyond the limits of {ctid}: {said}"))
    };
    refused("dd if=/dev/zero of=/tmp/fill bs=4k")?;
    let full = status()?;
    let Limit::Of(hard_kib) = full.space_kib.hard else { return Err(Error::Wrong(format!("{ctid} has {full:?}"))) };
    let right = hard_kib - SLACK_KIB..=hard_kib;
    require(right.contains(&full.space_used_kib), || format!("{shell} in {ctid} was refused more with {full:?}"))?;
    sh(&format!("vzctl exec2 {ctid} 'rm /tmp/fill'"))?;
    refused("i=0; while true > /tmp/x\\$i; do i=\\$((i+1)); done; exit 1")?;
    let full = status()?;
    require(Limit::Of(full.inodes_used) == full.inodes.hard, || {
        format!("{shell} in {ctid} was refused more with {full:?}")
    })?;
    sh(&format!("vzctl exec2 {ctid} 'rm -f /tmp/x*'")).map(drop)
}

/// Whatever a `create` or `destroy` of container 104 left, both work again and leave nothing.
fn settled() -> Result<(), Error> {
    let listed = sh("vzlist -aHo ctid")?;
    if listed.split_whitespace().any(|ctid| ctid == "104") {
        sh("vzctl destroy 104")?;
    }
    sh("vzctl create 104 --ostemplate busybox --diskspace 20M && vzctl destroy 104")?;
    let left = sh(&format!("ls -A {NODE}/private"))?;
    let right = ["101", "102", "103", "105", "106", "107", "108"];
    require(left.split_whitespace().eq(right), || format!("in {NODE}/private: {left}"))
}
