use super::*;
use std::fs;

use CgroupVersion::{V1, V2};

/// A container's cgroup as a directory of files with these contents.
fn cgroup(version: CgroupVersion, files: &[(&str, &str)]) -> (tempfile::TempDir, Sources) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    for (name, text) in files {
        fs::write(dir.path().join(name), text).expect("write a file of the cgroup");
    }
    let path = Some(dir.path().to_owned());
    (dir, Sources { memory: path.clone(), pids: path, version, processes: None, init: None, peaks: None })
}

/// The three numbers as a row, with `-` for what is not known.
fn row(reader: &mut Reader<'_>, resource: Resource) -> String {
    let usage = reader.usage(resource).expect("readable counters");
    let cell = |count: Option<u64>| count.map_or("-".to_owned(), |count| count.to_string());
    let amount = |amount: Option<Amount>| cell(amount.map(Amount::count));
    format!("{:<12} {:>6} {:>8} {:>7}", resource, amount(usage.held), amount(usage.maxheld), cell(usage.failcnt))
        .trim_end()
        .to_owned()
}

fn table(sources: &Sources) -> String {
    let mut reader = Reader::new(sources);
    Resource::LIVE.map(|resource| row(&mut reader, resource)).join("\n")
}

fn pages(count: u64) -> String {
    (count * procfs::page_size()).to_string()
}

#[test]
fn everything_a_v2_cgroup_counts_is_read() {
    let stat = format!(
        "anon {}\nfile 4096\nkernel 123456\nshmem {}\ninactive_anon {}\nactive_anon {}\nunevictable {}\nslab_reclaimable 777\n",
        pages(9),
        pages(3),
        pages(10),
        pages(20),
        pages(4)
    );
    let (_dir, sources) = cgroup(
        V2,
        &[
            ("memory.stat", &stat),
            ("memory.current", &pages(100)),
            ("memory.peak", &pages(200)),
            ("memory.swap.current", &pages(30)),
            ("memory.swap.peak", &pages(50)),
            ("memory.events", "low 0\nhigh 0\nmax 99\noom 3\noom_kill 2\noom_group_kill 7\n"),
            ("memory.events.local", "low 0\nhigh 0\nmax 5\noom 3\noom_kill 0\n"),
            ("memory.swap.events", "high 0\nmax 6\nfail 8\n"),
            ("pids.current", "23\n"),
            ("pids.peak", "40\n"),
            ("pids.events", "max 99\n"),
            ("pids.events.local", "max 17\n"),
        ],
    );
    insta::assert_snapshot!(table(&sources), @r"
    kmemsize     123456        -       -
    lockedpages       -        -       -
    privvmpages       -        -       -
    shmpages          3        -       -
    numproc          23       40      17
    physpages       100      200       5
    vmguarpages       0        0       0
    oomguarpages     64        -       2
    numtcpsock        -        -       -
    numflock          -        -       -
    numpty            -        -       -
    numsiginfo        -        -       -
    tcpsndbuf         -        -       -
    tcprcvbuf         -        -       -
    othersockbuf      -        -       -
    dgramrcvbuf       -        -       -
    numothersock      -        -       -
    dcachesize      777        -       -
    numfile           -        -       -
    numiptent         -        -       -
    swappages        30       50       6
    ");
}

#[test]
fn everything_a_v1_cgroup_counts_is_read() {
    let stat = format!(
        "shmem 1\nswap 1\ntotal_shmem {}\ntotal_swap {}\ntotal_inactive_anon {}\ntotal_active_anon {}\ntotal_unevictable {}\n",
        pages(3),
        pages(30),
        pages(10),
        pages(20),
        pages(4)
    );
    let (_dir, sources) = cgroup(
        V1,
        &[
            ("memory.stat", &stat),
            ("memory.usage_in_bytes", &pages(100)),
            ("memory.max_usage_in_bytes", &pages(200)),
            ("memory.failcnt", "5\n"),
            ("memory.memsw.failcnt", "6\n"),
            ("memory.kmem.usage_in_bytes", "123456\n"),
            ("memory.kmem.max_usage_in_bytes", "234567\n"),
            ("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"),
            ("pids.current", "23\n"),
            ("pids.peak", "40\n"),
            ("pids.events", "max 17\n"),
        ],
    );
    let mut reader = Reader::new(&sources);
    let known = [
        Resource::Kmemsize,
        Resource::Shmpages,
        Resource::Numproc,
        Resource::Physpages,
        Resource::Oomguarpages,
        Resource::Dcachesize,
        Resource::Swappages,
    ];
    insta::assert_snapshot!(known.map(|resource| row(&mut reader, resource)).join("\n"), @r"
    kmemsize     123456   234567       -
    shmpages          3        -       -
    numproc          23       40      17
    physpages       100      200       5
    oomguarpages     64        -       2
    dcachesize        -        -       -
    swappages        30        -       6
    ");
}

#[test]
fn what_has_no_source_is_not_known_rather_than_zero() {
    let (dir, empty) = cgroup(V2, &[("memory.stat", "anon 5\n"), ("pids.events", "max 9\n")]);
    let nowhere = Sources { memory: None, pids: None, version: V1, processes: None, init: None, peaks: None };
    let gone = Sources {
        memory: Some(dir.path().join("gone")),
        pids: None,
        version: V2,
        processes: None,
        init: None,
        peaks: None,
    };
    for sources in [empty, nowhere, gone] {
        let mut reader = Reader::new(&sources);
        for resource in Resource::ALL.into_iter().filter(|resource| *resource != Resource::Vmguarpages) {
            let usage = reader.usage(resource).expect("a missing file is no error");
            assert_eq!(
                usage,
                Usage { held: None, maxheld: None, failcnt: None, is_sampled: true },
                "{resource} of {sources:?}"
            );
        }
    }
}

#[test]
fn what_is_no_counter_is_an_error_with_its_path() {
    for bad in ["", "max\n", "-1\n", "12x\n", "18446744073709551616\n", "1 2\n", "\u{fffd}"] {
        let (dir, sources) = cgroup(V2, &[("pids.current", bad), ("pids.events.local", &format!("max {bad}"))]);
        match Reader::new(&sources).held(Resource::Numproc) {
            Err(ReadError::Malformed { path, .. }) => assert_eq!(path, dir.path().join("pids.current")),
            other => panic!("{bad:?} was read as {other:?}"),
        }
        assert!(Reader::new(&sources).failcnt(Resource::Numproc).is_err(), "{bad:?}");
    }
}

#[test]
fn an_unreadable_counter_is_an_error_with_its_path() {
    let (dir, sources) = cgroup(V1, &[]);
    fs::create_dir(dir.path().join("pids.current")).expect("a directory where a file should be");
    let error = Reader::new(&sources).held(Resource::Numproc).expect_err("a directory cannot be read");
    assert_eq!(error.to_string(), format!("read {}", dir.path().join("pids.current").display()));
}

#[test]
fn memory_stat_is_read_once_for_all_that_is_in_it() {
    let (dir, sources) = cgroup(V2, &[("memory.stat", &format!("shmem {}\nkernel 5\n", pages(3)))]);
    let mut reader = Reader::new(&sources);
    assert_eq!(reader.held(Resource::Shmpages).expect("read"), Some(Amount::new(Unit::Pages, 3)));
    fs::remove_file(dir.path().join("memory.stat")).expect("remove it");
    assert_eq!(reader.held(Resource::Kmemsize).expect("kept"), Some(Amount::new(Unit::Bytes, 5)));
}

/// The cgroup this test runs in, whose files a real kernel wrote.
fn own_memory_cgroup() -> Result<Sources, String> {
    let own = fs::read_to_string("/proc/self/cgroup").map_err(|e| format!("/proc/self/cgroup: {e}"))?;
    let v1 =
        own.lines().find_map(|line| line.split_once(":memory:")).map(|(_, path)| (V1, "/sys/fs/cgroup/memory", path));
    let v2 = own.lines().find_map(|line| line.strip_prefix("0::")).map(|path| (V2, "/sys/fs/cgroup", path));
    let (version, mount, path) = v1.or(v2).ok_or("no cgroup with memory")?;
    let dir = Path::new(mount).join(path.trim_start_matches('/'));
    let usage = dir.join(if version == V1 { "memory.usage_in_bytes" } else { "memory.current" });
    // Not there for the root of v2, nor for a path of another cgroup namespace.
    if usage.exists() {
        Ok(Sources { memory: Some(dir), pids: None, version, processes: None, init: None, peaks: None })
    } else {
        Err(format!("no {}", usage.display()))
    }
}

#[test]
fn the_files_of_this_kernel_are_understood() {
    let sources = match own_memory_cgroup() {
        Ok(sources) => sources,
        Err(reason) => return eprintln!("skipped: the_files_of_this_kernel_are_understood: {reason}"),
    };
    let mut reader = Reader::new(&sources);
    for resource in Resource::LIVE {
        reader.usage(resource).unwrap_or_else(|e| panic!("{resource}: {e}"));
    }
    let own = reader.held(Resource::Physpages).expect("readable").expect("this test has some memory");
    assert!(own.count() > 0);
    assert!(reader.held(Resource::Shmpages).expect("readable").is_some());
}
