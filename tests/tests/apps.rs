//! Application templates in containers of Debian 12: each of the shipped ones is installed, probed by what its users would do, and removed
//! without a trace. The container has no network: packages come from the host.

use tests::containers::node_with;
use tests::node::Node;
use tests::skips::skip;

const TEMPLATE: &str = "debian-12-x86_64";

/// A node on a host that has a way to the packages.
fn node_with_packages(test: &str) -> Option<Node> {
    // Its first line is a heading.
    if fs_err::read_to_string("/proc/net/route").expect("routes").lines().count() < 2 {
        skip(test, "needs a network, for packages");
        return None;
    }
    node_with(test, TEMPLATE)
}

fn running(test: &str) -> Option<Node> {
    let node = node_with_packages(test)?;
    node.done(["create", "101", "--ostemplate", TEMPLATE]);
    node.done(["start", "101", "--wait"]);
    Some(node)
}

fn vzpkg(node: &Node, arguments: &[&str]) -> String {
    node.run("vzpkg", arguments).ok().stdout
}

fn packages(node: &Node) -> String {
    node.inside("dpkg-query -W -f '${Package} ${Status}\\n' | sort")
}

/// What is in `/etc` and the units that are enabled, without what installing anything leaves (caches, numbers of users).
fn etc(node: &Node) -> String {
    node.inside("find /etc -not -path '*/ssl/*' -not -name '*-' -not -name ld.so.cache | sort")
}

/// Installs into a running container, lets `probe` use it, and removes it again.
fn installed_and_removed(test: &str, app: &str, probe: impl Fn(&Node)) {
    let Some(node) = running(test) else { return };
    let name = app.split(':').next().expect("a name");
    let before = (packages(&node), etc(&node));
    vzpkg(&node, &["install", "101", app]);
    assert!(vzpkg(&node, &["list", "101"]).starts_with(name));
    assert_eq!(node.configured(101, "TEMPLATES").as_deref(), Some(name));
    probe(&node);
    node.run("vzpkg", ["install", "101", app]).fails_with(27);
    vzpkg(&node, &["remove", "101", name]);
    assert_eq!(packages(&node), before.0, "{name} leaves packages");
    let left = etc(&node);
    let left: Vec<&str> = left.lines().filter(|l| !before.1.lines().any(|b| b == *l)).collect();
    assert_eq!(left, [""; 0], "{name} leaves files");
    assert_eq!(vzpkg(&node, &["list", "101"]), "");
    assert_eq!(node.configured(101, "TEMPLATES"), None);
    node.run("vzpkg", ["remove", "101", name]).fails_with(26);
    assert!(!node.path("etc/conf/101.apps").exists());
}

/// What a port inside answers to a line.
fn asked(node: &Node, port: u16, line: &str) -> String {
    node.inside(&format!("exec 3<>/dev/tcp/127.0.0.1/{port}; printf '{line}' >&3; timeout 5 head -c 2000 <&3; true"))
}

#[test]
fn nginx_shows_pages_on_the_port_it_was_given() {
    installed_and_removed("nginx_shows_pages_on_the_port_it_was_given", "nginx:port=8080", |node| {
        node.inside("echo 'a page of ours' > /var/www/html/index.html");
        let answer = asked(node, 8080, "GET / HTTP/1.0\\r\\n\\r\\n");
        assert!(answer.contains("a page of ours"), "{answer}");
        node.inside("rm /var/www/html/index.html");
    });
}

#[test]
fn apache_runs_php() {
    installed_and_removed("apache_runs_php", "apache-php", |node| {
        node.inside("echo '<?php echo 6 * 7, PHP_EOL;' > /var/www/html/answer.php");
        let answer = asked(node, 80, "GET /answer.php HTTP/1.0\\r\\n\\r\\n");
        assert!(answer.ends_with("\n42"), "{answer}");
        node.inside("rm /var/www/html/answer.php");
    });
}

#[test]
fn mariadb_keeps_rows() {
    installed_and_removed("mariadb_keeps_rows", "mariadb:port=3307", |node| {
        node.inside("mariadb -e 'create database d; create table d.t (n int); insert into d.t values (41),(42)'");
        assert_eq!(node.inside("mariadb -N -e 'select max(n), @@port from d.t'"), "42\t3307");
    });
}

#[test]
fn postgresql_keeps_rows() {
    installed_and_removed("postgresql_keeps_rows", "postgresql:port=5544", |node| {
        let sql = |text: &str| node.inside(&format!("cd /; su postgres -c \"psql -p 5544 -qAtc '{text}'\""));
        sql("create table t (n int); insert into t values (41),(42)");
        assert_eq!(sql("select max(n) from t"), "42");
    });
}

#[test]
fn redis_keeps_values_for_those_who_know_the_password() {
    let app = "redis:password=s3cret:port=6400";
    installed_and_removed("redis_keeps_values_for_those_who_know_the_password", app, |node| {
        assert!(asked(node, 6400, "GET a\\r\\nQUIT\\r\\n").contains("NOAUTH"));
        let answer = asked(node, 6400, "AUTH s3cret\\r\\nSET a 42\\r\\nGET a\\r\\nQUIT\\r\\n");
        assert!(answer.contains("\n42"), "{answer}");
        assert_eq!(node.inside("stat -c '%U:%G %a' /etc/redis/vz.conf"), "root:redis 640");
    });
}

#[test]
fn the_bastion_lets_through_with_a_key_and_gives_no_shell() {
    installed_and_removed("the_bastion_lets_through_with_a_key_and_gives_no_shell", "ssh-bastion", |node| {
        node.inside(
            "ssh-keygen -q -t ed25519 -N '' -f /root/k; install -d -o jump -g jump -m 700 /home/jump/.ssh; \
             install -o jump -g jump -m 600 /root/k.pub /home/jump/.ssh/authorized_keys; \
             install -d -m 700 /root/.ssh; cp /root/k.pub /root/.ssh/authorized_keys",
        );
        let options =
            "-o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR -i /root/k";
        let jump = format!(
            "ssh {options} -o ProxyCommand='ssh {options} -W 127.0.0.1:22 -p 2222 jump@127.0.0.1' root@127.0.0.1 echo through"
        );
        assert_eq!(node.inside(&jump), "through");
        let shell = node.vzctl(["exec2", "101", &format!("ssh {options} -p 2222 jump@127.0.0.1 id")]);
        assert!(shell.code != 0 && !shell.stdout.contains("uid="), "{shell:?}");
        let options = options.replace("BatchMode=yes", "PubkeyAuthentication=no -o BatchMode=yes");
        node.vzctl(["exec2", "101", &format!("ssh {options} -p 2222 jump@127.0.0.1 id")]).fails_with(255);
        node.inside("rm -r /root/k /root/k.pub /root/.ssh");
    });
}

#[test]
fn a_container_is_created_with_applications_which_run_from_its_first_start() {
    let test = "a_container_is_created_with_applications_which_run_from_its_first_start";
    let Some(node) = node_with_packages(test) else { return };
    node.vzctl(["create", "101", "--ostemplate", TEMPLATE, "--apptemplate", "nginx:port=81,redis"]).ok();
    assert_eq!(node.status(101), "CTID 101 exist unmounted down");
    assert_eq!(node.configured(101, "TEMPLATES").as_deref(), Some("nginx redis"));
    node.done(["start", "101", "--wait"]);
    let answer = asked(&node, 81, "GET / HTTP/1.0\\r\\n\\r\\n");
    assert!(answer.contains("Server: nginx"), "{answer}");
    assert_eq!(
        node.inside("systemctl is-active nginx redis-server; ls /usr/sbin/policy-rc.d 2>/dev/null; true"),
        "active\nactive"
    );
    node.done(["stop", "101", "--fast"]);
    node.run("vzpkg", ["remove", "101", "nginx", "redis"]).ok();
    assert_eq!(node.status(101), "CTID 101 exist unmounted down");
    node.done(["destroy", "101"]);
    assert_eq!(node.leftovers(), [""; 0]);
}

#[test]
fn what_cannot_be_is_refused_with_the_codes_of_vztt_and_changes_nothing() {
    let test = "what_cannot_be_is_refused_with_the_codes_of_vztt_and_changes_nothing";
    let Some(node) = node_with(test, "busybox") else { return };
    node.done(["create", "101", "--ostemplate", "busybox"]);
    let refused = node.run("vzpkg", ["install", "101", "nginx"]).fails_with(33);
    assert!(refused.stderr.starts_with("CT 101 (busybox) has no package manager"), "{}", refused.stderr);
    node.run("vzpkg", ["install", "101", "no-such"]).fails_with(24);
    node.run("vzpkg", ["install", "101", "nginx:port=0"]).fails_with(35);
    node.run("vzpkg", ["install", "101", "nginx:colour=red"]).fails_with(35);
    node.run("vzpkg", ["install", "102", "nginx"]).fails_with(16);
    node.run("vzpkg", ["remove", "101", "nginx"]).fails_with(26);
    node.vzctl(["create", "102", "--ostemplate", "busybox", "--apptemplate", "no-such"]).fails_with(91);
    node.vzctl(["create", "103", "--ostemplate", "busybox", "--apptemplate", "nginx"]);
    assert_eq!(node.status(102), "CTID 102 deleted unmounted down");
    assert_eq!(node.status(103), "CTID 103 deleted unmounted down");
    assert_eq!(node.status(101), "CTID 101 exist unmounted down");
    node.done(["destroy", "101"]);
    assert_eq!(node.leftovers(), [""; 0]);
}

/// A template of the node's own: its file, in a directory of the node's own with the shared caches beside.
fn own_template(node: &Node, name: &str, text: &str) {
    let shared = tests::containers::templates();
    let area = node.path("templates");
    fs_err::create_dir_all(area.join("recipes/apps")).expect("a directory");
    for part in ["cache", "debian"] {
        let there = area.join(part);
        if there.symlink_metadata().is_err() {
            fs_err::create_dir_all(shared.join(part)).expect("a directory");
            std::os::unix::fs::symlink(shared.join(part), there).expect("a link");
        }
    }
    fs_err::write(area.join(format!("recipes/apps/{name}.toml")), text).expect("a file");
    node.configure(&format!("TEMPLATE={}", area.display()));
}

#[test]
fn an_install_that_fails_or_is_killed_leaves_nothing_and_a_changed_file_is_kept() {
    let test = "an_install_that_fails_or_is_killed_leaves_nothing_and_a_changed_file_is_kept";
    let Some(node) = running(test) else { return };
    let text = "name='mine'\ndescription='d'\nversion='1'\n[[for]]\nfamily='debian'\npackages=['tree']\n\
                [[files]]\npath='/etc/mine/a'\ncontent='of the template'\n[[files]]\npath='/etc/motd'\ncontent='of the template'\n";
    own_template(&node, "mine", &format!("{text}[check]\nargv=['false']\nseconds=1\n"));
    own_template(
        &node,
        "over",
        "name='over'\ndescription='d'\nversion='1'\nrequires=['mine']\n[[for]]\nfamily='debian'\n",
    );
    own_template(
        &node,
        "against",
        "name='against'\ndescription='d'\nversion='1'\nconflicts=['mine']\n[[for]]\nfamily='debian'\n",
    );
    node.inside("echo before > /etc/motd");
    let before = (packages(&node), etc(&node));
    let failed = node.run("vzpkg", ["install", "101", "mine"]).fails_with(63);
    assert!(failed.stderr.contains("mine does not work"), "{}", failed.stderr);
    assert_eq!((packages(&node), etc(&node)), before);
    assert_eq!(node.inside("cat /etc/motd"), "before");

    // Killed while its own command runs, with packages and files there.
    let slow = format!("{text}[commands]\npost_install=[{{argv=['sleep','1000']}}]\n");
    own_template(&node, "mine", &slow);
    let mut install = node.command("vzpkg", ["install", "101", "mine"]).spawn().expect("it starts");
    let there = tests::wait::wait_until(std::time::Duration::from_secs(60), || {
        node.vzctl(["exec2", "101", "pidof sleep && grep -q template /etc/motd"]).code == 0
    });
    install.kill().expect("it runs");
    install.wait().expect("it ends");
    assert!(there, "it never came to its command");
    own_template(&node, "mine", text);
    let said = node.run("vzpkg", ["install", "101", "over"]).ok();
    assert!((said.stdout + &said.stderr).contains("that was interrupted"), "nothing was said");
    assert_eq!(node.configured(101, "TEMPLATES").as_deref(), Some("mine over"));
    node.run("vzpkg", ["remove", "101", "mine"]).fails_with(65);
    node.run("vzpkg", ["install", "101", "against"]).fails_with(28);
    node.inside("echo changed > /etc/mine/a");
    node.run("vzpkg", ["remove", "101", "mine", "over"]).ok();
    assert_eq!(node.inside("cat /etc/mine/a.vz-saved /etc/motd"), "changed\nbefore");
    node.inside("rm -r /etc/mine; pkill sleep; true");
    assert_eq!((packages(&node), etc(&node)), before);
}

#[test]
fn a_container_that_is_reinstalled_has_its_applications_again() {
    let Some(node) = node_with_packages("a_container_that_is_reinstalled_has_its_applications_again") else { return };
    node.done(["create", "101", "--ostemplate", TEMPLATE, "--apptemplate", "redis:port=6400"]);
    node.done(["reinstall", "101", "--skipbackup"]);
    assert!(vzpkg(&node, &["list", "101"]).starts_with("redis"));
    assert_eq!(node.configured(101, "TEMPLATES").as_deref(), Some("redis"));
    node.done(["start", "101", "--wait"]);
    assert!(node.inside("ss -ltn").contains(":6400 "), "with its parameters");
    node.done(["stop", "101", "--fast"]);
    node.done(["reinstall", "101", "--skipbackup", "--skipapps"]);
    assert_eq!(vzpkg(&node, &["list", "101"]), "");
    assert_eq!(node.configured(101, "TEMPLATES"), None);
    node.done(["destroy", "101"]);
    assert_eq!(node.leftovers(), [""; 0]);
}

#[test]
fn packages_are_fetched_before_they_are_needed() {
    let Some(node) = node_with_packages("packages_are_fetched_before_they_are_needed") else { return };
    let said = vzpkg(&node, &["fetch", TEMPLATE, "redis,nginx"]);
    assert!(said.contains("packages are here"), "{said}");
    let again = vzpkg(&node, &["fetch", TEMPLATE, "redis", "nginx"]);
    assert!(again.contains(" packages are here, 0 of them were fetched") && !again.starts_with("0 "), "{again}");
    vzpkg(&node, &["fetch", TEMPLATE]);
    node.run("vzpkg", ["fetch", TEMPLATE, "none-such"]).fails_with(24);
    node.run("vzpkg", ["fetch", "none-such", "redis"]).fails_with(23);
    node.run("vzpkg", ["fetch", "busybox", "redis"]).fails_with(33);
}
