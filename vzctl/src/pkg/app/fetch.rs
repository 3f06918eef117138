//! `vzpkg fetch`: packages that containers of an OS template will need, before they do.

use std::io::Read;
use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags, ResolveFlags};
use templates::app::{Request, Shelf, System};
use templates::pm::{Installed, Pm, PmError};
use templates::{Progress, Silent, Store, TemplateName};

use super::{Fail, because, fail};
use crate::config::Node;
use crate::pkg::exit::{self, PkgExit};
use crate::terminal_progress;

/// A status file of dpkg's that is larger is none.
const MOST_BYTES: u64 = 64 << 20;

/// Fetches what the applications need beside the template's own packages, or where none is named what of the template is out of date.
pub(super) fn run(node: &Node, shelf: &Shelf, os: &TemplateName, apps: &[Request]) -> Result<(), Fail> {
    let root = root(node, os)?;
    let release = ["etc/os-release", "usr/lib/os-release"].into_iter().find_map(|path| read(&root, path).transpose());
    let system = System::parse(&String::from_utf8_lossy(&release.transpose()?.unwrap_or_default()));
    let Some(status) = read(&root, "var/lib/dpkg/status")? else {
        let what = format!("{os} has no packages of Debian's kind: only those are known");
        return Err(fail(PkgExit::NotEz, what));
    };
    let installed = Installed::parse(&status)
        .map_err(|e| because(PkgExit::PackageManager, format!("The list of packages of {os} is damaged"), &e))?;
    let arch = installed.architecture().unwrap_or_default();
    let cannot = |e: PmError| because(exit::of_pm(&e), format!("Packages for {os} can't be had"), &e);
    let pm = Pm::open(&node.global.template_dir, &system, arch).map_err(cannot)?;
    let wanted = packages(shelf, &system, apps)?;
    let mut bar = terminal_progress(os.as_str());
    let mut silent = Silent;
    let progress: &mut dyn Progress = bar.as_mut().map_or(&mut silent, |bar| bar);
    let plan = if apps.is_empty() { pm.upgrades(&installed, progress) } else { pm.plan(&installed, &wanted, progress) };
    let plan = plan.map_err(cannot)?;
    let missing = plan.iter().filter(|deb| !deb.file.exists()).count();
    pm.fetch(&installed, &plan, progress).map_err(cannot)?;
    tracing::info!("{} packages are here, {missing} of them were fetched", plan.len());
    Ok(())
}

/// The template's tree, mounted to read.
fn root(node: &Node, os: &TemplateName) -> Result<OwnedFd, Fail> {
    let store = Store::open(&node.global.template_dir);
    let tree = store.find(os).and_then(|archive| store.tree(&archive, &mut Silent));
    let tree = tree.map_err(|e| because(exit::of_store(&e), format!("Packages for {os} can't be fetched"), &e))?;
    vzrt::rootfs::stacked(&tree.layers).map_err(|e| because(PkgExit::System, format!("{os} can't be mounted"), &e))
}

/// A file of the tree, links followed inside it; `None` where it is not there.
fn read(root: &OwnedFd, path: &str) -> Result<Option<Vec<u8>>, Fail> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
    let cannot = |e: std::io::Error| because(PkgExit::Broken, format!("/{path} of the template can't be read"), &e);
    let file = match rustix::fs::openat2(root, path, flags, Mode::empty(), resolve) {
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return Ok(None),
        opened => std::fs::File::from(opened.map_err(|e| cannot(e.into()))?),
    };
    if !file.metadata().map_err(cannot)?.is_file() {
        return Err(cannot(std::io::Error::other("it is no file")));
    }
    let mut bytes = Vec::new();
    file.take(MOST_BYTES + 1).read_to_end(&mut bytes).map_err(cannot)?;
    Ok(Some(bytes))
}

/// What the applications, and those that they require, need on this system.
fn packages(shelf: &Shelf, system: &System, apps: &[Request]) -> Result<Vec<String>, Fail> {
    let names: Vec<TemplateName> = apps.iter().map(|r| r.name.clone()).collect();
    let order = shelf
        .order(&names, &[])
        .map_err(|e| because(exit::of_order(&e), "Packages of application templates can't be fetched", &e))?;
    let mut packages = Vec::new();
    for app in order {
        let Some(needs) = app.for_system(system) else {
            let what = format!("Application template {} is not for {} {}", app.name, system.id, system.release);
            return Err(fail(PkgExit::Unavailable, what));
        };
        packages.extend(needs.packages.iter().cloned());
    }
    Ok(packages)
}
