//! `vzctl create`: a configuration and a private area.
//!
//! The private area is made beside its place and renamed into it with a mark in it; the mark goes when the configuration is saved. Under the
//! container's lock a mark means an interrupted `create`, and the next one clears it away.

use std::path::{Path, PathBuf};

use quota::Limit;
use quota::image::{self, Size};
use templates::{Progress, Silent, Store, TemplateName};
use vzrt::Interrupt;

use super::{Context, area, destroy, interrupted, system};
use crate::config::container::Container;
use crate::config::document::Document;
use crate::config::hooks::{Moment, scripts};
use crate::config::names;
use crate::config::request;
use crate::config::settings::Change;
use crate::config::values::{Layout, TemplateTree};
use crate::config::{Node, idrange};
use crate::failure::Outcome;
use crate::subject::Subject;
use crate::{Exit, Failure, decide, terminal_progress};

/// The mark of a private area whose `create` has not ended.
const MARK: &str = ".vz-creating";

pub(super) fn run(context: &Context) -> Outcome {
    let _lock = context.lock("creating")?;
    let interrupt = context.interrupt()?;
    let node = &context.node;
    let apps: Vec<String> =
        context.request.matches.get_many::<String>("apptemplate").into_iter().flatten().cloned().collect();
    crate::pkg::app::check_at_create(node, &apps)?;
    let changes = changes(context)?;
    let wanted = Subject::new(node, begin(context, &changes)?);
    let template = template_name(node, &wanted)?;
    let private = wanted.ve_private.clone();
    clear_interrupted(&private)?;
    if occupied(&private)? {
        return Err(Failure::new(
            Exit::PrivateAreaExists,
            format!("Private area already exists in {}", private.display()),
        ));
    }
    tracing::info!("Creating container private area ({template})");
    let (made, has_apps) = make(context, wanted, &template, &apps, &interrupt).inspect_err(|_| {
        if let Err(e) = clear_interrupted(&private) {
            e.tell();
        }
        tracing::error!("Creation of container private area failed");
    })?;
    tracing::info!("CT configuration saved to {}", node.container_conf(context.ctid).display());
    run_hook(context, &made)?;
    if !apps.is_empty() && !has_apps {
        crate::pkg::app::install_at_create(context, &apps).inspect_err(|_| unmake(context, &made))?;
    }
    tracing::info!("Container private area was created");
    Ok(Exit::Success)
}

fn changes(context: &Context) -> Result<Vec<Change>, Failure> {
    let matches = &context.request.matches;
    let mut changes: Vec<Change> = request::changes(matches)
        .map_err(|e| Failure::from_error(e.exit(), &e))?
        .into_iter()
        .map(|(_, change)| change)
        .collect();
    let asked = changes.iter().find_map(|c| match c {
        Change::Layout(layout) => Some(*layout),
        _ => None,
    });
    let layout = asked.or(context.node.global.defaults.layout).unwrap_or(Layout::Simfs);
    changes.push(Change::Layout(layout));
    Ok(changes)
}

/// The configuration the container begins with: a file somebody has put there already, or a sample; and what the command line says.
fn begin(context: &Context, changes: &[Change]) -> Result<Container, Failure> {
    let (node, ctid) = (&context.node, context.ctid);
    let named = context.request.matches.get_one::<String>("config");
    let exists = node.container_conf(ctid).exists();
    let fail = |e: crate::config::container::ContainerError| Failure::from_error(e.exit(), &e);
    let mut conf = if exists {
        if named.is_some() {
            return Err(Failure::new(
                Exit::CopyConfig,
                format!("Container config file {} already exists", node.container_conf(ctid).display()),
            )
            .hint("Leave --config out to use it, or remove it."));
        }
        tracing::info!("Container config file already exists, it is used as it is");
        Container::load(node, ctid).map_err(fail)?
    } else {
        let name = named.cloned().or_else(|| node.global.config_sample.clone());
        let document = match &name {
            Some(name) => sample(node, name)?,
            None => Document::default(),
        };
        let mut conf = Container::from_document(ctid, document);
        if let Some(name) = name {
            conf.apply(&[Change::OriginSample(name)]).map_err(fail)?;
        }
        conf
    };
    conf.apply(changes).map_err(fail)?;
    Ok(conf)
}

pub(super) fn sample(node: &Node, name: &str) -> Result<Document, Failure> {
    let missing = || {
        Failure::new(Exit::CopyConfig, format!("Sample config {name} not found"))
            .hint(format!("Samples are {}/ve-NAME.conf-sample.", node.conf_dir().display()))
    };
    let path = node.sample_conf(name).filter(|p| p.exists()).ok_or_else(missing)?;
    Document::load_linked(&path)
        .map_err(|e| Failure::because(Exit::CopyConfig, format!("Sample config {name} can't be read"), &e))
}

pub(super) fn template_name(node: &Node, container: &Subject) -> Result<TemplateName, Failure> {
    let name = container.settings.ostemplate.clone().or_else(|| node.global.default_ostemplate.clone());
    let name = name.ok_or_else(|| {
        Failure::new(Exit::NoOsTemplate, "OS template is not specified")
            .hint("`--ostemplate NAME` or DEF_OSTEMPLATE in vz.conf names one.")
    })?;
    name.parse().map_err(|e| Failure::because(Exit::NoSuchTemplate, format!("Bad OS template name {name}"), &e))
}

fn occupied(private: &Path) -> Result<bool, Failure> {
    match std::fs::read_dir(private) {
        Ok(mut entries) => Ok(entries.next().is_some()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(e) => {
            Err(Failure::because(Exit::CreatePrivateArea, format!("Unable to look into {}", private.display()), &e))
        }
    }
}

fn staging(private: &Path) -> PathBuf {
    let mut name = private.as_os_str().to_owned();
    name.push(".tmp");
    name.into()
}

fn clear_interrupted(private: &Path) -> Result<(), Failure> {
    if let Some(parent) = private.parent() {
        destroy::sweep(parent)?;
    }
    vzrt::remove::remove_tree(&staging(private)).map_err(|e| system(&e))?;
    if is_unfinished(private)? {
        vzrt::remove::remove_tree(private).map_err(|e| system(&e))?;
    }
    Ok(())
}

/// Takes the mark away that a `create` has left which was killed after it had saved the configuration: from now on the area has a
/// container's files. Only where the area's directory is ours.
pub(super) fn accept(container: &Subject) -> Result<(), Failure> {
    if container.settings.tree.is_none() && !decide::is_ploop(container) {
        return Ok(());
    }
    match std::fs::remove_file(container.ve_private.join(MARK)) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound && e.kind() != std::io::ErrorKind::NotADirectory => {
            Err(system(&e))
        }
        _ => Ok(()),
    }
}

/// Whether there is a private area that a `create` has not finished: the mark, and nothing else but what is there before the mark goes. An
/// area that is a container's whole root (one brought along from OpenVZ) is written by that container, which may have put a mark there.
fn is_unfinished(private: &Path) -> Result<bool, Failure> {
    let look = || -> std::io::Result<bool> {
        if !private.join(MARK).try_exists()? {
            return Ok(false);
        }
        let image = decide::image_file(private);
        let ploop = decide::ploop_image(private);
        for entry in std::fs::read_dir(private)? {
            let path = entry?.path();
            if path != private.join(MARK) && path != image && Some(path.as_path()) != ploop.parent() {
                return Ok(false);
            }
        }
        Ok(true)
    };
    match look() {
        Err(e) if e.kind() == std::io::ErrorKind::NotADirectory => Ok(false),
        looked => looked.map_err(|e| {
            Failure::because(Exit::CreatePrivateArea, format!("Unable to look into {}", private.display()), &e)
        }),
    }
}

/// Everything that leaves something behind, in an order that a crash anywhere can be recognised from. Also tells whether the applications came
/// as a layer.
fn make(
    context: &Context,
    wanted: Subject,
    template: &TemplateName,
    apps: &[String],
    interrupt: &Interrupt,
) -> Result<(Subject, bool), Failure> {
    let safe_to_stop = || interrupt.check().map_err(interrupted);
    let node = &context.node;
    let fail = |e: crate::config::container::ContainerError| Failure::from_error(e.exit(), &e);
    // Asked before anything is unpacked for it.
    let ploop = decide::is_ploop(&wanted);
    if ploop {
        area::image_bytes(&wanted)?;
    }
    let tree = tree(node, template)?;
    if ploop {
        decide::refuse_without_init(node, &tree.to_string())?;
    }
    safe_to_stop()?;
    // Held until the configuration that names it is saved. Layers of one's own choice may be anything: over them one installs.
    let has_layers = !wanted.settings.layers.is_empty();
    let layer = if has_layers { None } else { crate::pkg::app::layer_at_create(node, &tree, apps)? };
    // Held until the configuration that names the range is saved.
    let range = range(context, &wanted)?;
    let mut changes = vec![
        // An image has its own copy of the template.
        Change::Tree((!ploop).then(|| tree.clone())),
        Change::OsTemplate(template.to_string()),
        Change::LocalUid(range.bases.uid),
        Change::LocalGid(range.bases.gid),
    ];
    changes.extend(layer.iter().flat_map(|layer| layer.changes()));
    let container = wanted.with(node, &changes).map_err(fail)?;
    let name = container.settings.name.clone();
    let claim = name.as_deref().map(|n| names::claim(node, context.ctid, n)).transpose();
    let claim = claim.map_err(|e| Failure::from_error(e.exit(), &e))?;
    make_private(context, &container, &tree)?;
    // An image has its own copy of the layer too.
    let copied = ploop && layer.is_some();
    let container = if copied { container.with(node, &[Change::Layers(Vec::new())]).map_err(fail)? } else { container };
    safe_to_stop()?;
    match &layer {
        Some(layer) => layer.save(node, context.ctid)?,
        None => crate::pkg::app::forget(node, context.ctid)?,
    }
    container.own.save(node).map_err(fail).inspect_err(|_| {
        if let Err(e) = crate::pkg::app::forget(node, context.ctid) {
            e.tell();
        }
    })?;
    if let Some(claim) = claim {
        claim.keep(None).map_err(|e| Failure::from_error(e.exit(), &e))?;
    }
    std::fs::remove_file(container.ve_private.join(MARK)).map_err(|e| system(&e))?;
    Ok((container, layer.is_some()))
}

/// The numbers of the container's users on the host: those of the command line or not at all, those of a file that was there if they are
/// free, or new ones.
fn range(context: &Context, wanted: &Subject) -> Result<idrange::Allocation, Failure> {
    let node = &context.node;
    let fail = |e: idrange::RangeError| Failure::from_error(e.exit(), &e);
    let given = |option| matches!(context.request.matches.try_get_raw(option), Ok(Some(_)));
    let asked = given("local_uid") || given("local_gid");
    match wanted.bases() {
        Some(bases) => match idrange::adopt(node, context.ctid, bases) {
            Err(idrange::RangeError::Overlap { .. }) if !asked => idrange::allocate(node).map_err(fail),
            adopted => adopted.map_err(|e| Failure::from_error(Exit::InvalidValue, &e)),
        },
        None if asked => Err(Failure::new(Exit::NotEnoughParameters, "--local_uid and --local_gid need each other")),
        None => idrange::allocate(node).map_err(fail),
    }
}

/// The shared tree, unpacked now if no container has needed it before.
pub(super) fn tree(node: &Node, template: &TemplateName) -> Result<TemplateTree, Failure> {
    let store = Store::open(&node.global.template_dir);
    let archive = store.find(template).map_err(|e| {
        Failure::from_error(Exit::NoSuchTemplate, &e).hint(format!(
            "`vzpkg create cache {template}` makes it, or put {template}.tar.gz into {}.",
            store.cache_dir().display()
        ))
    })?;
    let mut silent = Silent;
    let mut bar = terminal_progress(template.as_str());
    let progress: &mut dyn Progress = bar.as_mut().map_or(&mut silent, |bar| bar);
    let tree = store.tree(&archive, progress).map_err(|e| {
        let exit = if crate::failure::is_disk_full(&e) { Exit::NoDiskSpace } else { Exit::BrokenTemplate };
        Failure::because(exit, format!("OS template {template} can't be unpacked"), &e)
    })?;
    TemplateTree::parse(&tree.id).map_err(|e| Failure::new(Exit::System, e.to_string()))
}

/// The private area: an image with a copy of the template, or empty over the template's tree and bounded by project quota or an image.
fn make_private(context: &Context, container: &Subject, tree: &TemplateTree) -> Result<(), Failure> {
    let private = &container.ve_private;
    let temp = staging(private);
    let cannot = |e: &(dyn std::error::Error + 'static)| {
        let exit = if crate::failure::is_disk_full(e) { Exit::NoDiskSpace } else { Exit::CreatePrivateArea };
        Failure::because(exit, format!("Unable to create the private area {}", private.display()), e)
    };
    vzrt::rootfs::make_private(&temp).map_err(|e| cannot(&e))?;
    std::fs::write(temp.join(MARK), "").map_err(|e| cannot(&e))?;
    fill(&context.node, container, tree, &temp)?;
    let sync_parent = || std::fs::File::open(private.parent().unwrap_or(Path::new("/")))?.sync_all();
    // An empty directory in its place is what rename(2) replaces.
    std::fs::rename(&temp, private).and_then(|()| sync_parent()).map_err(|e| cannot(&e))
}

/// What a new private area holds before its first start.
pub(super) fn fill(node: &Node, container: &Subject, tree: &TemplateTree, area: &Path) -> Result<(), Failure> {
    if decide::is_ploop(container) {
        area::make_from_template(node, tree, container, area)?;
        warn_of_few_inodes(container);
        return Ok(());
    }
    bound(node, container, area).map_err(|e| match e {
        Bounding::Failure(f) => f,
        Bounding::Image(e) => {
            let exit = if crate::failure::is_disk_full(&e) { Exit::NoDiskSpace } else { Exit::CreatePrivateArea };
            Failure::because(exit, format!("Unable to create the private area {}", area.display()), &e)
        }
    })
}

pub(super) enum Bounding {
    Failure(Failure),
    Image(image::Error),
}

/// Bounds a private area of the simfs layout that is still empty.
pub(super) fn bound(node: &Node, container: &Subject, area: &Path) -> Result<(), Bounding> {
    let limits = container.settings.disk_limits().effective();
    let Limit::Of(space_kib) = limits.space_kib.hard else { return Ok(()) };
    if decide::is_bounded_by_image(node, container, area).map_err(Bounding::Failure)? {
        warn_of_few_inodes(container);
        let inodes = match limits.inodes.hard {
            Limit::Of(n) => n,
            // mke2fs's own ratio.
            Limit::Unlimited => space_kib / 16,
        };
        return image::create(&decide::image_file(area), Size::Usable(space_kib), inodes).map_err(Bounding::Image);
    }
    if decide::wants_quota(node, container) {
        decide::own_area(node, area).map_err(Bounding::Failure)?;
    }
    Ok(())
}

/// ext4 has an inode for each of its blocks at most.
fn warn_of_few_inodes(container: &Subject) {
    let limits = container.settings.disk_limits().effective();
    if let (Limit::Of(kib), Limit::Of(inodes)) = (limits.space_kib.hard, limits.inodes.hard) {
        let most = kib.saturating_mul(1024) / image::BLOCK_BYTES;
        if inodes > most {
            tracing::warn!("Warning: an image of {kib} KiB has about {most} inodes, not the {inodes} of --diskinodes");
        }
    }
}

/// `vps.create` may refuse the container, which then never was.
fn run_hook(context: &Context, made: &Subject) -> Result<(), Failure> {
    let node = &context.node;
    let run = || -> Result<(), Failure> {
        let hooks = scripts(node, context.ctid, Moment::Create).map_err(|e| Failure::from_error(e.exit(), &e))?;
        let env = decide::hook_env(node, context.ctid);
        vzrt::hooks::run_on_host(&hooks, &vzrt::plan::Hooks { env, ..Default::default() })
            .map_err(|e| Failure::from_error(Exit::ActionScript, &e))
    };
    run().inspect_err(|_| unmake(context, made))
}

/// The container never was; what its undoing meets is told, for the caller has an error to end with already.
fn unmake(context: &Context, made: &Subject) {
    let node = &context.node;
    tracing::error!("Creation of container private area failed");
    let undone = vzrt::remove::remove_tree(&made.ve_private).map_err(|e| system(&e)).and_then(|()| {
        // Made to mount on, when something was to be installed.
        match std::fs::remove_dir(&made.ve_root) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(system(&e)),
            _ => {}
        }
        if let Some(name) = &made.settings.name {
            names::release(node, context.ctid, name).map_err(|e| Failure::from_error(e.exit(), &e))?;
        }
        let apps = node.conf_dir().join(format!("{}.apps", context.ctid));
        match std::fs::remove_file(apps) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(system(&e)),
            _ => {}
        }
        std::fs::remove_file(node.container_conf(context.ctid)).map_err(|e| system(&e))
    });
    if let Err(e) = undone {
        e.tell();
    }
}
