//! Limits, live, up and down; devices; what the host lacks.

use super::*;

#[test]
fn limits_can_be_set_and_changed_up_and_down() {
    let Some(t) = Scratch::new("limits") else { return };
    let has_swap = t.file(Controller::Memory, "memory.memsw.limit_in_bytes", "memory.swap.max").exists();
    for mib in [64i64, 256, 32, 128] {
        let limits = resources(json!({
            "memory": {"limit": mib << 20, "swap": mib << 21, "reservation": mib << 19},
            "pids": {"limit": mib},
            "cpu": {"quota": mib * 1000, "period": 100_000},
        }));
        let missing = t.ct.apply(&limits).unwrap();
        assert_eq!(missing.len(), usize::from(!has_swap), "{missing:?}");
        assert_eq!(t.read(Controller::Memory, "memory.limit_in_bytes", "memory.max"), (mib << 20).to_string());
        assert_eq!(t.read(Controller::Memory, "memory.soft_limit_in_bytes", "memory.low"), (mib << 19).to_string());
        if has_swap {
            let v2 = t.host.top(Controller::Memory).unwrap().v2;
            let swap = if v2 { mib << 20 } else { mib << 21 };
            assert_eq!(t.read(Controller::Memory, "memory.memsw.limit_in_bytes", "memory.swap.max"), swap.to_string());
        }
        assert_eq!(t.read(Controller::Pids, "pids.max", "pids.max"), mib.to_string());
        let quota = t.read(Controller::Cpu, "cpu.cfs_quota_us", "cpu.max");
        assert_eq!(quota.split(' ').next(), Some((mib * 1000).to_string().as_str()));
    }
    t.ct.apply(&resources(json!({"memory": {"limit": -1}, "pids": {"limit": -1}, "cpu": {"quota": -1}}))).unwrap();
    let memory = t.read(Controller::Memory, "memory.limit_in_bytes", "memory.max");
    assert!(memory == "max" || memory == "9223372036854771712", "{memory}");
    assert_eq!(t.read(Controller::Pids, "pids.max", "pids.max"), "max");
    assert!(matches!(t.read(Controller::Cpu, "cpu.cfs_quota_us", "cpu.max").split(' ').next(), Some("-1" | "max")));
}

/// What is written, and where, on a unified host; the kernel's answers are the other tests' business.
#[test]
fn on_a_unified_host_resources_become_the_files_of_v2() {
    let root = tempfile::tempdir().unwrap();
    let unified_controllers = Controller::ALL.into_iter().filter(|c| c.v2_name().is_some()).collect();
    let host = Host { unified: root.path().to_owned(), unified_controllers, v1: Vec::new() };
    let ct = host.container("vz", Ctid::try_from(101).unwrap());
    let dir = root.path().join("vz/101");
    fs::create_dir_all(&dir).unwrap();
    let put = |name: &str, text: &str| fs::write(dir.join(name), text).unwrap();
    let get = |name: &str| fs::read_to_string(dir.join(name)).unwrap();
    let empty = "memory.max memory.swap.max memory.low memory.high pids.max cpuset.cpus cpuset.mems io.bfq.weight io.weight io.max";
    empty.split(' ').for_each(|name| put(name, ""));
    put("memory.current", "0\n");
    put("cpu.max", "max 100000\n");
    let limits = json!({
        "memory": {"limit": 1 << 30, "swap": 3i64 << 29, "reservation": 1 << 29, "swappiness": 10},
        "pids": {"limit": 0}, "cpu": {"quota": 150_000, "period": 100_000, "cpus": "0-3", "mems": "0"},
        "blockIO": {"weight": 500, "throttleWriteBpsDevice": [{"major": 8, "minor": 0, "rate": 4096}]},
        "unified": {"memory.high": "1000000000"},
    });
    let missing = ct.apply(&resources(limits)).unwrap();
    let no_swappiness = Unsupported { what: What::Swappiness, why: Why::NoFile(dir.join("memory.swappiness")) };
    assert_eq!(missing, [no_swappiness]);
    for (file, value) in [
        ("memory.max", "1073741824"),
        ("memory.swap.max", "536870912"),
        ("memory.low", "536870912"),
        ("memory.high", "1000000000"),
        ("pids.max", "max"),
        ("cpu.max", "150000 100000"),
        ("cpuset.cpus", "0-3"),
        ("io.bfq.weight", "500"),
        ("io.weight", "500"),
        ("io.max", "8:0 wbps=4096"),
    ] {
        assert_eq!(get(file), value, "{file}");
    }
    put("io.max", "");
    put("memory.max", "1073741824");
    put("memory.swap.max", "");
    let lifted = json!({
        "memory": {"swap": 1 << 30}, "cpu": {"quota": -1},
        "blockIO": {"throttleWriteBpsDevice": [{"major": 8, "minor": 0, "rate": 0}]},
    });
    assert_eq!(ct.apply(&resources(lifted)).unwrap(), []);
    assert_eq!(get("memory.swap.max"), "0", "memory and swap together are the memory limit in force");
    assert_eq!(get("cpu.max"), "max 100000");
    assert_eq!(get("io.max"), "8:0 wbps=max");
    fs::remove_file(dir.join("memory.swap.max")).unwrap();
    let limits = resources(json!({"memory": {"limit": 1 << 20, "swap": 1 << 21}}));
    let no_swap = Unsupported { what: What::SwapLimit, why: Why::NoFile(dir.join("memory.swap.max")) };
    assert_eq!(ct.apply(&limits).unwrap(), [no_swap]);
    put("memory.current", "5000000\n");
    put("memory.reclaim", "");
    assert!(matches!(ct.apply(&limits), Err(Error::InUse { limit: 1_048_576, used: 5_000_000 })));
    assert_eq!(get("memory.reclaim"), (5_000_000 - 1_048_576).to_string());
}

#[test]
fn cpus_can_be_narrowed_and_given_back() {
    let Some(t) = Scratch::new("cpuset") else { return };
    t.ct.apply(&resources(json!({"cpu": {"cpus": "0", "mems": "0"}}))).unwrap();
    assert_eq!(t.read(Controller::Cpuset, "cpuset.cpus", "cpuset.cpus"), "0");
    assert_eq!(t.run("exec grep -qx 'Cpus_allowed_list:[[:space:]]*0' /proc/self/status"), 0);
    let all = fs::read_to_string("/sys/devices/system/cpu/online").unwrap().trim().to_owned();
    t.ct.apply(&resources(json!({"cpu": {"cpus": all}}))).unwrap();
    assert_eq!(t.read(Controller::Cpuset, "cpuset.cpus", "cpuset.cpus"), all);
    t.ct.apply(&resources(json!({"cpu": {"cpus": "0"}}))).unwrap();
    t.ct.apply(&resources(json!({"cpu": {"cpus": "", "mems": ""}}))).unwrap();
    assert_eq!(t.read(Controller::Cpuset, "cpuset.effective_cpus", "cpuset.cpus.effective"), all);
    assert_eq!(t.read(Controller::Cpuset, "cpuset.cpus", "cpuset.cpus"), all, "an empty list is written as all");
    for bad in ["4095", "one"] {
        assert!(t.ct.apply(&resources(json!({"cpu": {"cpus": bad}}))).is_err(), "{bad}");
    }
    assert!(matches!(t.ct.apply(&resources(json!({"memory": {"limit": 0}}))), Err(Error::Value { .. })));
}

#[test]
fn io_throttles_are_set_and_taken_away() {
    let Some(t) = Scratch::new("io") else { return };
    // Any disk of this machine: loop0 is there even when unused.
    let Some(dev) =
        fs::read_dir("/sys/block").unwrap().find_map(|d| fs::read_to_string(d.unwrap().path().join("dev")).ok())
    else {
        return eprintln!("skipped: io: no block device");
    };
    let (major, minor) = dev.trim().split_once(':').unwrap();
    let limits = |rate: u64| {
        let device =
            json!([{"major": major.parse::<i64>().unwrap(), "minor": minor.parse::<i64>().unwrap(), "rate": rate}]);
        resources(json!({"blockIO": {
            "throttleReadBpsDevice": device, "throttleWriteBpsDevice": device,
            "throttleReadIOPSDevice": device, "throttleWriteIOPSDevice": device,
        }}))
    };
    assert_eq!(t.ct.apply(&limits(1_048_576)).unwrap(), []);
    for (v1, v2) in [("read_bps", "rbps"), ("write_bps", "wbps"), ("read_iops", "riops"), ("write_iops", "wiops")] {
        let text = t.read(Controller::Io, &format!("blkio.throttle.{v1}_device"), "io.max");
        let want = [format!("{} 1048576", dev.trim()), format!("{v2}=1048576")];
        assert!(text.starts_with(dev.trim()) && want.iter().any(|w| text.contains(w)), "{v1}: {text}");
    }
    t.ct.apply(&limits(0)).unwrap();
    assert_eq!(t.read(Controller::Io, "blkio.throttle.read_bps_device", "io.max"), "");
}

#[test]
fn what_the_host_lacks_is_reported_and_the_rest_applied() {
    let Some(t) = Scratch::new("unsupported") else { return };
    let limits = json!({
        "memory": {"kernelTCP": 1}, "pids": {"limit": 7}, "blockIO": {"leafWeight": 10},
        "hugepageLimits": [{"pageSize": "2MB", "limit": 0}], "unified": {"memory.high": "max"},
    });
    let missing = t.ct.apply(&resources(limits)).unwrap();
    let named = |n: &str, why: Why| Unsupported { what: What::Named(n.to_owned()), why };
    let mut want = vec![named("memory.kernelTCP", Why::NotManaged), named("blockIO.leafWeight", Why::NotManaged)];
    if !t.host.top(Controller::Memory).unwrap().v2 {
        want.push(named("memory.high", Why::NoController(Controller::Memory)));
    }
    want.push(named("hugepageLimits", Why::NotManaged));
    assert_eq!(missing, want);
    assert_eq!(t.read(Controller::Pids, "pids.max", "pids.max"), "7");
    for bad in ["cgroup.procs", "memory/../cgroup.procs", "memory.x/y", "release_agent"] {
        let refused = t.ct.apply(&resources(json!({"unified": {bad: "0"}})));
        assert!(matches!(refused, Err(Error::Value { .. })), "{bad}: {refused:?}");
    }
}

#[test]
fn a_process_cannot_have_more_children_than_its_limit() {
    let Some(t) = Scratch::new("pids") else { return };
    let four_children = "for i in 1 2 3 4; do sleep 0.05 & done; wait; exit 0";
    t.ct.apply(&resources(json!({"pids": {"limit": 5}}))).unwrap();
    assert_eq!(t.run(four_children), 0);
    assert_eq!(t.ct.usage().unwrap().pids, Some(0));
    t.ct.apply(&resources(json!({"pids": {"limit": 4}}))).unwrap();
    assert_ne!(t.run(four_children), 0, "with the shell they are five");
}

#[test]
fn memory_over_the_limit_kills_inside() {
    let Some(t) = Scratch::new("memory") else { return };
    t.ct.apply(&resources(json!({"memory": {"limit": 16 << 20, "swap": 16 << 20}}))).unwrap();
    let hog = "head -c 100000000 /dev/zero | tail -c 50000000 >/dev/null"; // Its status is tail's, which holds 50 MB.
    assert_eq!(t.run(hog), 128 + 9);
    t.ct.apply(&resources(json!({"memory": {"limit": 256 << 20, "swap": 256 << 20}}))).unwrap();
    assert_eq!(t.run(hog), 0);
}

#[test]
fn memory_in_use_is_not_killed_by_a_lower_limit() {
    let Some(t) = Scratch::new("lower") else { return };
    t.ct.apply(&resources(json!({"memory": {"limit": 128 << 20, "swap": 128 << 20}}))).unwrap();
    let held = "x=$(head -c 40000000 /dev/zero | tr '\\0' x); kill -STOP $$";
    let pid = spawn_sh(&t.ct.entry().unwrap(), held).unwrap();
    waitpid(Some(pid), WaitOptions::UNTRACED).unwrap();
    let refused = t.ct.apply(&resources(json!({"memory": {"limit": 8 << 20, "swap": 8 << 20}})));
    assert!(matches!(refused, Err(Error::InUse { limit: 8_388_608, .. })), "{refused:?}");
    assert_eq!(t.ct.pids().unwrap(), [pid], "still alive");
    t.ct.kill().unwrap();
    assert_eq!(t.wait(pid), 128 + 9);
}

#[test]
fn devices_not_granted_are_refused_until_granted() {
    let Some(t) = Scratch::new("devices") else { return };
    let set = |rules: Vec<oci_spec::runtime::LinuxDeviceCgroup>| {
        let mut resources = LinuxResources::default();
        resources.set_devices(Some(rules));
        assert_eq!(t.ct.apply(&resources).unwrap(), []);
    };
    let kmsg = "exec 3</dev/kmsg";
    assert_eq!(t.run(kmsg), 0, "without rules all is open");
    set(default_rules(false));
    assert_ne!(t.run(kmsg), 0);
    assert_eq!(t.run("exec 3<>/dev/null 4</dev/urandom 5>/dev/zero"), 0);
    let node = std::env::temp_dir().join(format!("{}-kmsg", t.name));
    assert_ne!(t.run(&format!("exec mknod {} c 1 11", node.display())), 0, "mknod");
    let mut more = default_rules(true);
    more.push(device_rule(true, Some(oci_spec::runtime::LinuxDeviceType::C), Some(1), Some(11), "r"));
    set(more);
    assert_eq!(t.run(kmsg), 0);
    assert_ne!(t.run("exec 3>/dev/kmsg"), 0, "read was granted, not write");
    set(default_rules(false));
    assert_ne!(t.run(kmsg), 0);
    let dir = entry::open_dir(&t.ct.unified).unwrap();
    assert!(sys::attached(std::os::fd::AsFd::as_fd(&dir)).unwrap().is_some());
}

#[test]
fn the_support_report_knows_what_this_machine_can_do_and_leaves_nothing() {
    let Some(t) = Scratch::absent("support") else { return };
    let support = t.host.support(&t.name).unwrap();
    for needed in [
        "controller memory",
        "controller pids",
        "controller cpu",
        "cgroup.kill",
        "cgroup.freeze",
        "device filter (BPF)",
    ] {
        let fact = support.facts.iter().find(|f| f.feature == needed).unwrap();
        assert!(fact.available.is_ok(), "{fact:?}");
    }
    for parent in t.parents() {
        assert_eq!(fs::read_dir(&parent).unwrap().filter(|d| d.as_ref().unwrap().path().is_dir()).count(), 0);
    }
}

#[test]
fn containers_are_weighed_on_one_scale_and_anew_when_one_comes_changes_or_goes() {
    let Some(t) = Scratch::new("weights") else { return };
    let other = t.host.container(&t.name, Ctid::try_from(102).unwrap());
    let weight = |ct: &CtCgroup| {
        let place = ct.place(Controller::Cpu).unwrap();
        fs::read_to_string(place.dir.join(if place.v2 { "cpu.weight" } else { "cpu.shares" }))
            .unwrap()
            .trim()
            .parse::<u64>()
            .unwrap()
    };
    let of_all = || {
        let place = t.host.top(Controller::Cpu).unwrap();
        let file = place.dir.join(&t.name).join(if place.v2 { "cpu.weight" } else { "cpu.shares" });
        let weight: f64 = fs::read_to_string(file).unwrap().trim().parse().unwrap();
        weight / if place.v2 { 100.0 } else { 1024.0 }
    };
    let share = |units| CpuShare { units, host_units: 1000 };
    assert_eq!(t.ct.weigh(share(1000)).unwrap(), None);
    let alone = weight(&t.ct);
    assert!((0.99..1.01).contains(&of_all()));
    other.create(&Delegation::to(UID, UID)).unwrap();
    assert_eq!(other.cpuunits().unwrap(), None);
    other.weigh(share(2000)).unwrap();
    assert_eq!(weight(&t.ct), alone, "there is room on the scale");
    assert!(weight(&other).abs_diff(2 * alone) <= 1 && (2.99..3.01).contains(&of_all()));

    other.weigh(share(500_000)).unwrap();
    assert_eq!((t.ct.cpuunits().unwrap(), other.cpuunits().unwrap()), (Some(1000), Some(500_000)));
    let ratio = weight(&other) as f64 / weight(&t.ct) as f64;
    assert!((487.0..513.0).contains(&ratio), "{ratio} of 500");
    other.weigh(CpuShare { units: 8, host_units: 100 }).unwrap();
    let ratio = weight(&t.ct) as f64 / weight(&other) as f64;
    // More than four ordinary ones for each processor they never weigh.
    let most = 4.0 * std::thread::available_parallelism().unwrap().get() as f64;
    let is = |wanted: f64| (of_all() - f64::min(wanted, most)).abs() < 0.01;
    assert!((124.0..126.0).contains(&ratio) && is(10.08), "{ratio} of 125, {}", of_all());

    other.remove(SOON).unwrap();
    t.host.share_cpu(&t.name).unwrap();
    assert!(is(10.0), "{}", of_all());
}
