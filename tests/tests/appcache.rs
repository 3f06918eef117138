//! Applications that are installed once, into a layer, and from it into containers at their creation: what is on disk once, what each
//! container has of its own, and what one does to it that no other sees.

use std::path::Path;
use std::time::Duration;

use tests::containers::{disk_kib, node_with_own_store};
use tests::node::{Node, Outcome};
use tests::skips::skip;
use tests::wait::wait_until;

const TEMPLATE: &str = "debian-12-x86_64";

/// Neither packages nor a network: a file, a service, and 4 MiB that a command makes.
const MINE: &str = "name='mine'\ndescription='d'\nversion='1'\n[[for]]\nfamily='debian'\n\
    [parameters.port]\ntype='port'\ndefault='80'\n\
    [[files]]\npath='/etc/mine/port'\ncontent='{port}'\n\
    [[files]]\npath='/etc/systemd/system/mine.service'\ncontent='''
[Service]
ExecStart=/usr/bin/sleep infinity
[Install]
WantedBy=multi-user.target
'''\n[services]\nenable=['mine.service']\n[commands]\n\
    post_install=[{argv=['dd','if=/dev/urandom','of=/opt/mine','bs=1M','count=4','status=none']}]\n\
    post_remove=[{argv=['rm','/opt/mine']}]\n";
const OVER: &str = "name='over'\ndescription='d'\nversion='1'\nrequires=['mine']\n[[for]]\nfamily='debian'\n\
    [[files]]\npath='/etc/over'\ncontent='over'\n";
const SECRET: &str = "name='secret'\ndescription='d'\nversion='1'\n[[for]]\nfamily='debian'\n\
    [parameters.password]\ntype='secret'\ndefault='x'\n";
const KEY: &str = "name='key'\ndescription='d'\nversion='1'\n[[for]]\nfamily='debian'\n\
    [[files]]\npath='/etc/ssl/private/own.key'\ncontent='k'\n";

/// A store of its own, and private areas that are directories on every host: an image has a size of its own.
fn node(test: &str) -> Option<Node> {
    let node = node_with_own_store(test, &[TEMPLATE])?;
    node.configure("DISK_QUOTA=no");
    Some(node)
}

fn template(node: &Node, name: &str, text: &str) {
    let directory = node.path("template/recipes/apps");
    fs_err::create_dir_all(&directory).expect("a directory");
    fs_err::write(directory.join(format!("{name}.toml")), text).expect("a template");
}

fn vzpkg(node: &Node, words: &[&str]) -> Outcome {
    Outcome::of(node.command("vzpkg", words), Duration::from_secs(500))
}

fn layers(node: &Node) -> Vec<serde_json::Value> {
    let listed = vzpkg(node, &["list", "appcache", "--json"]).ok().stdout;
    serde_json::from_str(&listed).expect("JSON")
}

fn create(node: &Node, ctid: u32, apps: &str) -> String {
    node.done(["create", &ctid.to_string(), "--ostemplate", TEMPLATE, "--apptemplate", apps])
}

fn inside(node: &Node, ctid: u32, line: &str) -> String {
    node.done(["exec2", &ctid.to_string(), line]).trim_end().to_owned()
}

/// Nothing of the temporary containers is there any more.
fn nothing_is_left(node: &Node) {
    for (directory, start) in [("template/recipes/apps", ".temporary"), ("etc/conf", "2147"), ("private", "2147")] {
        let names = fs_err::read_dir(node.path(directory)).expect("a directory").flatten().map(|e| e.file_name());
        let left: Vec<_> = names.filter(|n| n.to_string_lossy().starts_with(start)).collect();
        assert!(left.is_empty(), "{directory}: {left:?}");
    }
}

fn layer_directory(node: &Node, layer: &serde_json::Value) -> std::path::PathBuf {
    node.path("template/cache/.layers").join(layer["id"].as_str().expect("an id"))
}

#[test]
fn containers_created_with_cached_applications_share_them_and_each_may_remove_its_own() {
    let test = "containers_created_with_cached_applications_share_them_and_each_may_remove_its_own";
    let Some(node) = node(test) else { return };
    template(&node, "mine", MINE);
    template(&node, "over", OVER);
    vzpkg(&node, &["create", "appcache", TEMPLATE, "--apptemplate", "over"]).ok();
    nothing_is_left(&node);
    let listed = layers(&node);
    assert_eq!((listed.len(), &listed[0]["apps"]), (1, &serde_json::json!(["mine", "over"])), "{listed:#?}");
    let (id, layer) = (listed[0]["id"].as_str().expect("an id"), layer_directory(&node, &listed[0]));
    // Asked for by other words it is the same.
    vzpkg(&node, &["create", "appcache", "--ostemplate", TEMPLATE, "--apptemplate", "over,mine"]).fails_with(29);

    let all: Vec<u32> = (101..=105).collect();
    for (ctid, words) in all.iter().zip(["over", "mine,over", "over,mine", "mine:port=80,over", "over"]) {
        let said = create(&node, *ctid, words);
        assert!(said.contains("nothing is installed"), "{words}: {said}");
        assert_eq!(node.configured(*ctid, "VZ_LAYERS").as_deref(), Some(id));
        assert_eq!(node.configured(*ctid, "TEMPLATES").as_deref(), Some("mine over"));
        let has = vzpkg(&node, &["list", &ctid.to_string()]).ok().stdout;
        assert_eq!(has.split_whitespace().step_by(4).collect::<Vec<_>>(), ["mine", "over"], "{has}");
    }
    for words in ["mine", "mine:port=81,over"] {
        let said = create(&node, 106, words);
        assert!(said.contains("Installing application template mine"), "{words}: {said}");
        assert_eq!(node.configured(106, "VZ_LAYERS"), None, "{words}");
        node.done(["destroy", "106"]);
    }
    // An image has a copy, and the layer is no matter to it.
    let image = ["--layout", "ploop", "--diskspace", "1500M"];
    let words = ["create", "107", "--ostemplate", TEMPLATE, "--apptemplate", "over"];
    let said = node.done(words.into_iter().chain(image));
    assert!(said.contains("nothing is installed"), "{said}");
    assert_eq!((node.configured(107, "VZ_LAYERS"), node.configured(107, "VZ_TREE")), (None, None));
    assert_eq!(node.configured(107, "TEMPLATES").as_deref(), Some("mine over"));
    node.done(["start", "107", "--wait"]);
    assert_eq!(
        inside(&node, 107, "cat /etc/over; stat -c %s /opt/mine; systemctl is-active mine"),
        "over4194304\nactive"
    );
    node.done(["stop", "107", "--fast"]);
    node.done(["destroy", "107"]);

    let look = "stat -c %i /opt/mine; md5sum < /opt/mine; cat /etc/mine/port /etc/over; echo; systemctl is-active mine";
    for ctid in [101, 102] {
        node.done(["start", &ctid.to_string(), "--wait"]);
    }
    let first = inside(&node, 101, look);
    assert!(first.ends_with("\n80over\nactive"), "{first}");
    assert_eq!(inside(&node, 102, look), first, "one inode, so one copy in memory too");

    // One goes without, and no other knows.
    vzpkg(&node, &["remove", "101", "mine"]).fails_with(65);
    vzpkg(&node, &["remove", "101", "mine", "over"]).ok();
    assert_eq!(
        inside(&node, 101, "ls -d /opt/mine /etc/mine /etc/over 2>/dev/null; systemctl is-active mine; true"),
        "inactive"
    );
    assert_eq!(vzpkg(&node, &["list", "101"]).ok().stdout, "");
    assert_eq!(inside(&node, 102, look), first);
    vzpkg(&node, &["remove", "103", "over"]).ok();
    assert_eq!(node.configured(103, "TEMPLATES").as_deref(), Some("mine"));

    let own: Vec<u64> = [103, 104, 105].iter().map(|ctid| disk_kib(&node.path(format!("private/{ctid}")))).collect();
    assert!(disk_kib(&layer) >= 4096);
    assert!(own[1..].iter().all(|kib| *kib < 256) && own[0] < 1024, "{own:?} KiB of their own");
    vzpkg(&node, &["remove", "appcache", id]).fails_with(35);
    for ctid in all {
        if ctid < 103 {
            node.done(["stop", &ctid.to_string(), "--fast"]);
        }
        node.done(["destroy", &ctid.to_string()]);
    }
    vzpkg(&node, &["remove", "appcache", id]).ok();
    assert!(!layer.exists());
    assert_eq!(node.leftovers(), [""; 0]);
}

#[test]
fn an_updated_layer_lies_beside_the_old_one_until_no_container_is_on_that() {
    let test = "an_updated_layer_lies_beside_the_old_one_until_no_container_is_on_that";
    let Some(node) = node(test) else { return };
    template(&node, "mine", MINE);
    vzpkg(&node, &["update", "appcache"]).ok();
    vzpkg(&node, &["update", "appcache", TEMPLATE]).fails_with(23);
    vzpkg(&node, &["create", "appcache", TEMPLATE, "--apptemplate", "mine:port=81"]).ok();
    let first = layers(&node).remove(0);
    create(&node, 101, "mine:port=81");
    let said = vzpkg(&node, &["update", "appcache"]).ok();
    assert!((said.stdout + &said.stderr).contains("is as it was"));
    assert_eq!(layers(&node).len(), 1);

    template(&node, "mine", &MINE.replace("content='{port}'", "content='new {port}'"));
    // What was made by another template is not what is asked for.
    create(&node, 102, "mine:port=81");
    assert_eq!(node.configured(102, "VZ_LAYERS"), None);
    vzpkg(&node, &["update", "appcache", TEMPLATE, "--apptemplate", "mine:port=81"]).ok();
    let both = layers(&node);
    assert_eq!(both.len(), 2, "a container is on the old one: {both:#?}");
    let new = both.iter().find(|layer| layer["id"] != first["id"]).expect("a new one");
    create(&node, 103, "mine:port=81");
    assert_eq!(node.configured(103, "VZ_LAYERS").as_deref(), new["id"].as_str());
    assert_eq!(node.configured(101, "VZ_LAYERS").as_deref(), first["id"].as_str());
    let text = |layer| fs_err::read_to_string(layer_directory(&node, layer).join("etc/mine/port")).expect("a file");
    assert_eq!((text(&first), text(new)), ("81".to_owned(), "new 81".to_owned()));

    node.done(["destroy", "101"]);
    vzpkg(&node, &["update", "appcache"]).ok();
    assert_eq!(layers(&node).iter().map(|layer| &layer["id"]).collect::<Vec<_>>(), [&new["id"]]);
    assert!(!layer_directory(&node, &first).exists());

    // One that lies on a tree that is no longer the template's is remade on that which is; one whose template has gone, goes.
    let (record, tree) = (layer_directory(&node, new), new["tree"].as_str().expect("a tree"));
    let record = record.with_file_name(format!("{}.json", new["id"].as_str().expect("an id")));
    let older =
        fs_err::read_to_string(&record).expect("a record").replace(tree, &format!("{TEMPLATE}@0000000000000000"));
    fs_err::write(&record, older).expect("a record");
    node.done(["destroy", "102"]);
    node.done(["destroy", "103"]);
    vzpkg(&node, &["update", "appcache"]).ok();
    let remade = layers(&node);
    assert_eq!((remade.len(), remade[0]["tree"].as_str()), (1, Some(tree)), "{remade:#?}");
    assert_ne!(remade[0]["id"], new["id"]);
    vzpkg(&node, &["remove", "cache", TEMPLATE]).ok();
    vzpkg(&node, &["update", "appcache"]).ok();
    assert_eq!(layers(&node), [serde_json::Value::Null; 0]);
    nothing_is_left(&node);
}

#[test]
fn what_containers_must_not_share_is_in_no_layer() {
    let test = "what_containers_must_not_share_is_in_no_layer";
    let Some(node) = node(test) else { return };
    template(&node, "secret", SECRET);
    template(&node, "key", KEY);
    let refused = |apps: &str, code: i32| {
        vzpkg(&node, &["create", "appcache", TEMPLATE, "--apptemplate", apps]).fails_with(code).stderr
    };
    assert!(refused("secret:password=y", 28).starts_with("secret has a secret, password, which all containers"));
    assert!(refused("redis", 28).starts_with("redis has a secret, password, which all containers"));
    assert!(refused("key", 28).contains("/etc/ssl/private/own.key is a key"));
    refused("no-such", 24);
    vzpkg(&node, &["create", "appcache", "no-such", "--apptemplate", "key"]).fails_with(23);
    vzpkg(&node, &["create", "appcache", TEMPLATE]).fails_with(35);
    assert_eq!(layers(&node), [serde_json::Value::Null; 0]);
    nothing_is_left(&node);
}

#[test]
fn a_captured_application_is_cached_like_any_other() {
    let test = "a_captured_application_is_cached_like_any_other";
    let Some(node) = node_with_own_store(test, &["busybox"]) else { return };
    node.configure("DISK_QUOTA=no");
    let script = node.path("script");
    let text = "set -e; mkdir /opt; dd if=/dev/urandom of=/opt/large bs=1M count=4 2>/dev/null
echo 'app:x:150:150::/opt:/bin/false' >> /etc/passwd; rm /etc/shells
";
    fs_err::write(&script, text).expect("a script");
    let script = script.display().to_string();
    vzpkg(&node, &["capture", "app", "--from", "busybox", "--script", &script, "--yes"]).ok();
    vzpkg(&node, &["create", "appcache", "busybox", "--apptemplate", "app"]).ok();
    for ctid in ["101", "102"] {
        let said = node.done(["create", ctid, "--ostemplate", "busybox", "--apptemplate", "app"]);
        assert!(said.contains("nothing is installed"), "{said}");
        node.done(["start", ctid]);
    }
    let look =
        "stat -c %i /opt/large; md5sum < /opt/large; grep -c ^app: /etc/passwd; ls /etc/shells 2>/dev/null; true";
    let first = inside(&node, 101, look);
    assert!(first.ends_with("-\n1"), "{first}");
    assert_eq!(inside(&node, 102, look), first);
    let own: u64 = [101, 102].iter().map(|ctid| disk_kib(&node.path(format!("private/{ctid}")))).sum();
    assert!(own < 512, "{own} KiB of their own over a layer of 4 MiB");
    vzpkg(&node, &["remove", "101", "app"]).ok();
    assert_eq!(
        inside(&node, 101, "ls /opt/large /etc/shells 2>/dev/null; grep -c ^app: /etc/passwd; true"),
        "/etc/shells\n0"
    );
    assert_eq!(inside(&node, 102, look), first);
    nothing_is_left(&node);
}

#[test]
fn a_signal_in_the_middle_leaves_neither_a_layer_nor_a_container() {
    let test = "a_signal_in_the_middle_leaves_neither_a_layer_nor_a_container";
    let Some(node) = node(test) else { return };
    let slow = MINE.replace("'dd','if=/dev/urandom','of=/opt/mine','bs=1M','count=4','status=none'", "'sleep','1000'");
    assert_ne!(slow, MINE);
    template(&node, "mine", &slow);
    let said = std::fs::File::create(node.path("said")).expect("a file");
    let mut command = node.command("vzpkg", ["create", "appcache", TEMPLATE, "--apptemplate", "mine"]);
    let mut create = command.stdout(said.try_clone().expect("a file")).stderr(said).spawn().expect("vzpkg");
    let conf = node.path("etc/conf/2147483000.apps");
    // Its own command runs once its record says so.
    let runs = || fs_err::read_to_string(&conf).is_ok_and(|text| text.contains("\"commands_run\": true"));
    assert!(wait_until(Duration::from_secs(100), runs), "it came to its command");
    let pid = nix::unistd::Pid::from_raw(i32::try_from(create.id()).expect("a number"));
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).expect("kill");
    assert_eq!(create.wait().expect("it ends").code(), Some(1));
    let said = fs_err::read_to_string(node.path("said")).expect("what it said");
    assert!(said.contains("Cancelling..."), "{said}");
    assert_eq!(layers(&node), [serde_json::Value::Null; 0]);
    nothing_is_left(&node);
    assert_eq!(node.leftovers(), [""; 0]);
}

/// The shared objects that a program inside has mapped, as `INODE PATH`.
fn mapped(node: &Node, ctid: u32, program: &str) -> Vec<String> {
    let maps = inside(node, ctid, &format!("cat /proc/$(pgrep -o {program})/maps"));
    let mut files: Vec<String> = maps
        .lines()
        .filter(|line| line.contains(" r-xp ") && line.contains(".so"))
        .map(|line| line.split_whitespace().skip(4).collect::<Vec<_>>().join(" "))
        .collect();
    files.sort();
    files
}

#[test]
fn lamp_from_a_layer_works_in_each_container_and_is_on_disk_once() {
    let test = "lamp_from_a_layer_works_in_each_container_and_is_on_disk_once";
    if fs_err::read_to_string("/proc/net/route").expect("routes").lines().count() < 2 {
        skip(test, "needs a network, for packages");
        return;
    }
    let Some(node) = node(test) else { return };
    vzpkg(&node, &["create", "appcache", TEMPLATE, "--apptemplate", "apache-php,mariadb"]).ok();
    let listed = layers(&node);
    let layer = layer_directory(&node, &listed[0]);
    for ctid in 101..=110 {
        create(&node, ctid, "mariadb,apache-php");
    }
    let own: u64 = (101..=110).map(|ctid| disk_kib(&node.path(format!("private/{ctid}")))).sum();
    println!("ten containers: {own} KiB of their own over {} KiB", disk_kib(&layer));
    assert!(own < 1024, "{own} KiB");
    let serves = |ctid: u32| {
        inside(
            &node,
            ctid,
            "mariadb -e 'create database d; create table d.t (n int); insert into d.t values (41),(42)'; \
             echo '<?php echo 6 * 7, PHP_EOL;' > /var/www/html/answer.php",
        );
        let page = "exec 3<>/dev/tcp/127.0.0.1/80; printf 'GET /answer.php HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3";
        let page = inside(&node, ctid, page);
        assert!(page.ends_with("\n42"), "{page}");
        assert_eq!(inside(&node, ctid, "mariadb -N -e 'select max(n) from d.t'"), "42");
    };
    for ctid in [101, 102] {
        node.done(["start", &ctid.to_string(), "--wait"]);
        serves(ctid);
    }
    for program in ["apache2", "mariadbd"] {
        let files = mapped(&node, 101, program);
        assert!(files.len() > 3, "{files:?}");
        assert_eq!(mapped(&node, 102, program), files, "the same inodes of the same file system");
    }
    assert_ne!(inside(&node, 101, "cat /etc/machine-id"), inside(&node, 102, "cat /etc/machine-id"));

    // The packages go as from a container into which they were installed.
    let before = inside(&node, 102, "dpkg -l | grep -c ^ii");
    vzpkg(&node, &["remove", "101", "mariadb", "apache-php"]).ok();
    assert_eq!(inside(&node, 101, "dpkg -l | grep -E 'apache|mariadb|php' | wc -l"), "0");
    assert_eq!(inside(&node, 102, "dpkg -l | grep -c ^ii"), before);
    assert_eq!(inside(&node, 102, "systemctl is-active apache2 mariadb"), "active\nactive");
    assert!(Path::exists(&layer.join("usr/sbin/mariadbd")));
}
