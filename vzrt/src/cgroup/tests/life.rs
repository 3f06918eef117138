//! Making, entering, freezing, killing and removing.

use std::os::unix::fs::MetadataExt as _;

use super::*;

#[test]
fn a_child_is_in_all_hierarchies_from_its_first_instruction() {
    let Some(t) = Scratch::new("entry") else { return };
    let pid = spawn_sh(&t.ct.entry().unwrap(), "kill -STOP $$").unwrap();
    waitpid(Some(pid), WaitOptions::UNTRACED).unwrap();
    let all = fs::read_to_string(format!("/proc/{}/cgroup", pid.as_raw_nonzero())).unwrap();
    let here = format!("/{}/101", t.name);
    assert_eq!(all.lines().filter(|l| l.ends_with(&here)).count(), t.ct.paths().len(), "{all}");
    for path in t.ct.paths() {
        let procs = fs::read_to_string(path.join("cgroup.procs")).unwrap();
        assert_eq!(procs.trim(), pid.as_raw_nonzero().to_string(), "{}", path.display());
    }
    t.ct.kill().unwrap();
    t.wait(pid);
}

#[test]
fn exec_has_a_leaf_of_its_own_whatever_the_container_did() {
    let Some(t) = Scratch::new("exec") else { return };
    let leaf = |entry: &Entry| {
        let pid = spawn_sh(entry, "kill -STOP $$").unwrap();
        waitpid(Some(pid), WaitOptions::UNTRACED).unwrap();
        let text = fs::read_to_string(format!("/proc/{}/cgroup", pid.as_raw_nonzero())).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        t.wait(pid);
        let unified = text.lines().find_map(|l| l.strip_prefix("0::")).unwrap();
        unified.strip_prefix(&format!("/{}/101", t.name)).expect("inside the container").to_owned()
    };
    assert_eq!(leaf(&t.ct.exec_entry().unwrap()), "/vz.exec");
    let path = |name: &str| t.ct.unified.join(name);
    assert_eq!(fs::metadata(path("vz.exec")).unwrap().uid(), 0, "the container cannot set its limits");

    // The container's systemd enables controllers in its root.
    for name in fs::read_to_string(path("cgroup.controllers")).unwrap().split_whitespace() {
        fs::write(path("cgroup.subtree_control"), format!("+{name}")).unwrap();
    }
    assert_eq!(leaf(&t.ct.exec_entry().unwrap()), "/vz.exec");

    // It removes the leaf, takes the name, and freezes what comes.
    fs::remove_dir(path("vz.exec")).unwrap();
    fs::create_dir(path("vz.exec")).unwrap();
    std::os::unix::fs::lchown(path("vz.exec"), Some(UID), Some(UID)).unwrap();
    fs::write(path("vz.exec/cgroup.freeze"), "1").unwrap();
    assert_eq!(leaf(&t.ct.exec_entry().unwrap()), "/vz.exec1");

    // It uses up its number of cgroups.
    fs::remove_dir(path("vz.exec1")).unwrap();
    fs::write(path("cgroup.max.descendants"), "1").unwrap();
    assert_eq!(leaf(&t.ct.exec_entry().unwrap()), "/vz.exec1");
    assert_eq!(fs::read_to_string(path("cgroup.max.descendants")).unwrap().trim(), "1", "and gains none by it");
}

#[test]
fn exec_goes_to_the_root_when_the_container_uses_threaded_cgroups() {
    let Some(t) = Scratch::new("threaded") else { return };
    let sub = t.ct.unified.join("sub");
    fs::create_dir(&sub).unwrap();
    fs::write(sub.join("cgroup.type"), "threaded").unwrap();
    let pid = spawn_sh(&t.ct.exec_entry().unwrap(), "kill -STOP $$").unwrap();
    waitpid(Some(pid), WaitOptions::UNTRACED).unwrap();
    fs::write(sub.join("cgroup.threads"), pid.as_raw_nonzero().to_string()).unwrap();
    assert_eq!(t.ct.pids().unwrap(), [pid], "a threaded cgroup has no cgroup.procs to read");
    t.ct.kill().unwrap();
    t.wait(pid);
}

#[test]
fn the_container_gets_its_tree_and_not_its_limits() {
    let Some(t) = Scratch::new("delegation") else { return };
    let owned: Vec<String> = fs::read_dir(&t.ct.unified)
        .unwrap()
        .map(|f| f.unwrap())
        .filter(|f| f.metadata().unwrap().uid() == UID)
        .map(|f| f.file_name().into_string().unwrap())
        .collect();
    let mut owned: Vec<_> = owned.iter().map(String::as_str).collect();
    owned.sort_unstable();
    assert_eq!(owned, ["cgroup.procs", "cgroup.subtree_control", "cgroup.threads"]);
    assert_eq!(fs::metadata(&t.ct.unified).unwrap().uid(), UID);
    for dir in t.ct.v1_dirs() {
        for file in fs::read_dir(&dir).unwrap().map(|f| f.unwrap().path()).chain([dir.clone()]) {
            assert_eq!(fs::metadata(&file).unwrap().uid(), 0, "{}", file.display());
        }
    }
    fs::write(t.ct.unified.join("cgroup.max.descendants"), "3").unwrap();
    let as_container = format!(
        "cd {} && exec setpriv --reuid {UID} --regid {UID} --clear-groups sh -c \
         'mkdir a b c && ! mkdir d && ! echo max > cgroup.max.descendants && ! echo 0 > ../cgroup.procs && echo 0 > a/cgroup.procs'",
        t.ct.unified.display()
    );
    assert_eq!(t.run(&as_container), 0);
}

#[test]
fn freezing_stops_everything_and_thawing_lets_it_go_on() {
    let Some(t) = Scratch::new("freeze") else { return };
    let pid = spawn_sh(&t.ct.entry().unwrap(), "while :; do :; done").unwrap();
    until("it runs", || t.ct.usage().unwrap().cpu > Duration::from_millis(5));
    t.ct.freeze(SOON).unwrap();
    let frozen = t.ct.usage().unwrap().cpu;
    std::thread::sleep(Duration::from_millis(30)); // Nothing may happen: there is no condition to wait for.
    assert_eq!(t.ct.usage().unwrap().cpu, frozen);
    t.ct.thaw(SOON).unwrap();
    until("it goes on", || t.ct.usage().unwrap().cpu > frozen);
    t.ct.freeze(SOON).unwrap();
    t.ct.kill().unwrap();
    t.ct.wait_empty(SOON).unwrap();
    assert_eq!(t.wait(pid), 128 + 9, "frozen processes die too");
}

/// 127 shells, half of which keep forking.
const BOMB: &str = "b() { [ $1 = 0 ] && while :; do /bin/true; done; b $(($1-1)) & b $(($1-1)) & wait; }; b 6";

#[test]
fn a_forking_tree_in_nested_cgroups_is_killed_and_nothing_is_left() {
    let Some(t) = Scratch::new("bomb") else { return };
    t.ct.apply(&resources(json!({"pids": {"limit": 400}}))).unwrap();
    let sub = t.ct.unified.join("a");
    fs::create_dir_all(sub.join("b/c")).unwrap();
    let script = format!("echo 0 > {}/b/c/cgroup.procs; {BOMB}", sub.display());
    let pid = spawn_sh(&t.ct.entry().unwrap(), &script).unwrap();
    until("it has grown", || t.ct.pids().unwrap().len() > 50);
    assert!(t.ct.is_populated().unwrap());
    assert!(t.ct.remove(Duration::from_millis(20)).is_err(), "live processes are never removed from under");
    t.ct.kill().unwrap();
    t.ct.wait_empty(SOON).unwrap();
    assert!(!t.ct.is_populated().unwrap());
    t.wait(pid);
    t.ct.remove(SOON).unwrap();
    assert!(!t.ct.exists());
    assert!(t.ct.paths().iter().all(|p| !p.exists()));
    t.ct.remove(SOON).unwrap();
}

#[test]
fn without_cgroup_kill_signals_do() {
    let Some(t) = Scratch::new("signals") else { return };
    t.ct.apply(&resources(json!({"pids": {"limit": 400}}))).unwrap();
    let pid = spawn_sh(&t.ct.entry().unwrap(), BOMB).unwrap();
    until("it has grown", || t.ct.pids().unwrap().len() > 20);
    t.ct.kill_each().unwrap();
    t.ct.wait_empty(SOON).unwrap();
    assert_eq!(t.wait(pid), 128 + 9);
}

#[test]
fn a_container_that_exists_is_not_made_twice_and_a_half_made_one_is_taken_back() {
    let Some(t) = Scratch::new("twice") else { return };
    assert!(matches!(t.ct.create(&Delegation::to(UID, UID)), Err(Error::Exists { .. })));
    assert!(t.ct.paths().iter().all(|p| p.exists()), "what was there stays");
    t.ct.remove(SOON).unwrap();
    // Something sits in the last hierarchy only (on a unified host: in the only one).
    let last = t.ct.paths().pop().unwrap();
    fs::create_dir(&last).unwrap();
    assert!(matches!(t.ct.create(&Delegation::to(UID, UID)), Err(Error::Exists { path }) if path == last));
    assert_eq!(t.ct.paths().iter().filter(|p| p.exists()).count(), 1);
}

#[test]
fn a_hundred_containers_come_and_go_and_leave_nothing() {
    let Some(t) = Scratch::absent("hundred") else { return };
    let limits = resources(json!({
        "memory": {"limit": 64 << 20}, "pids": {"limit": 10}, "cpu": {"quota": 50_000, "period": 100_000},
        "devices": default_rules(false),
    }));
    let (mut made, mut entered, mut removed) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
    for _ in 0..100 {
        let start = Instant::now();
        t.ct.create(&Delegation::to(UID, UID)).unwrap();
        t.ct.apply(&limits).unwrap();
        let entry = t.ct.entry().unwrap();
        made += start.elapsed();
        let start = Instant::now();
        let pid = spawn_sh(&entry, "exit 3").unwrap();
        assert_eq!(t.wait(pid), 3);
        entered += start.elapsed();
        let start = Instant::now();
        t.ct.remove(SOON).unwrap();
        removed += start.elapsed();
    }
    eprintln!("each: create+apply+entry {:?}, process {:?}, remove {:?}", made / 100, entered / 100, removed / 100);
    for parent in t.parents() {
        let left = fs::read_dir(&parent).unwrap().filter(|d| d.as_ref().unwrap().file_type().unwrap().is_dir()).count();
        assert_eq!(left, 0, "{}", parent.display());
    }
    let stat = t.parents()[0].join("cgroup.stat");
    let dying = || fs::read_to_string(&stat).unwrap();
    until("the kernel has freed them", || file::keyed(&dying(), "nr_dying_descendants") == Some("0"));
    assert_eq!(file::keyed(&dying(), "nr_descendants"), Some("0"));
}

#[test]
fn an_absent_container_is_empty_and_its_removal_is_done() {
    let Some(t) = Scratch::absent("absent") else { return };
    assert!(!t.ct.exists());
    assert!(!t.ct.is_populated().unwrap());
    t.ct.wait_empty(Duration::ZERO).unwrap();
    t.ct.remove(Duration::ZERO).unwrap();
    assert!(t.ct.usage().is_err());
    assert!(t.ct.entry().is_err());
    assert!(t.ct.kill().is_err());
}
