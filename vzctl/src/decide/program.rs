//! What a container of an OCI image without an init runs in its place: the program the image names, as the first process.

use oci_spec::runtime::{Spec, UserBuilder};
use templates::Run;

use super::root::is_ploop;
use crate::config::Node;
use crate::subject::Subject;
use crate::{Exit, Failure};

/// Of an image; of every other template there is none.
pub(super) struct Program(Run);

/// Asked of the tree that the container lies on. An image file has a copy of the tree and no word of what it wants to be run, so none is made
/// of such a tree ([`needs_tree`]).
pub(super) fn of(node: &Node, container: &Subject) -> Result<Option<Program>, Failure> {
    let Some(tree) = container.settings.tree.as_ref().filter(|_| !is_ploop(container)) else { return Ok(None) };
    let run = run_of(node, &tree.to_string())?;
    Ok(run.filter(|run| !run.has_init).map(Program))
}

fn run_of(node: &Node, tree: &str) -> Result<Option<Run>, Failure> {
    let store = templates::Store::open(&node.global.template_dir);
    store.run_of(tree).map_err(|e| Failure::from_error(Exit::NoSuchTemplate, &e))
}

/// Refuses to make an image file of a tree whose program only the tree knows.
///
/// # Errors
/// 47: so it is.
pub fn refuse_without_init(node: &Node, tree: &str) -> Result<(), Failure> {
    match run_of(node, tree)? {
        Some(run) if !run.has_init => Err(Failure::new(
            Exit::BrokenTemplate,
            format!("The image that {tree} was made from has no init; what it runs is known to its tree alone"),
        )
        .hint("`--layout simfs` puts a container on the tree.")),
        _ => Ok(()),
    }
}

impl Program {
    /// Where it may be: the name of a program is looked for in the image's PATH.
    pub(super) fn paths(&self) -> Vec<String> {
        let name = self.0.args.first().map_or("", String::as_str);
        if name.starts_with('/') {
            return vec![name.to_owned()];
        }
        if name.contains('/') {
            return vec![format!("{}/{name}", self.0.dir.trim_end_matches('/'))];
        }
        let env = self.env();
        let path = env.iter().find_map(|e| e.strip_prefix("PATH=")).unwrap_or_default();
        path.split(':')
            .filter(|dir| dir.starts_with('/'))
            .map(|dir| format!("{}/{name}", dir.trim_end_matches('/')))
            .collect()
    }

    pub(super) fn stop_signal(&self) -> i32 {
        self.0.stop_signal
    }

    /// What the image sets, and what every container has where the image sets nothing.
    fn env(&self) -> Vec<String> {
        let mut env = self.0.env.clone();
        for usual in ["HOME=/", "TERM=linux", "container=openvz", super::spec::vz_path()] {
            let name = usual.split_inclusive('=').next().unwrap_or(usual);
            if !env.iter().any(|e| e.starts_with(name)) {
                env.push(usual.to_owned());
            }
        }
        env
    }

    pub(super) fn put_into(&self, spec: &mut Spec) -> Result<(), Failure> {
        let (uid, gid) = self.0.ids;
        let user = UserBuilder::default().uid(uid).gid(gid).build();
        let user = user.map_err(|e| Failure::from_error(Exit::InvalidValue, &e))?;
        if let Some(process) = spec.process_mut() {
            process.set_args(Some(self.0.args.clone()));
            process.set_env(Some(self.env()));
            process.set_cwd(self.0.dir.clone().into());
            process.set_user(user);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(args: &[&str], env: &[&str]) -> Program {
        let list = |l: &[&str]| l.iter().map(ToString::to_string).collect();
        Program(Run { args: list(args), env: list(env), dir: String::from("/srv"), ..Run::default() })
    }

    #[test]
    fn a_program_is_looked_for_in_the_path_of_its_image() {
        assert_eq!(program(&["/bin/a", "x"], &[]).paths(), ["/bin/a"]);
        assert_eq!(program(&["./a"], &[]).paths(), ["/srv/./a"]);
        assert_eq!(program(&["a"], &["PATH=/x:/y/:relative"]).paths(), ["/x/a", "/y/a"]);
        assert!(program(&["a"], &[]).paths().contains(&String::from("/usr/bin/a")));
    }

    #[test]
    fn what_the_image_sets_is_set_once_and_the_rest_is_as_in_every_container() {
        let env = program(&["a"], &["TERM=dumb", "X=1"]).env();
        assert_eq!(env.iter().filter(|e| e.starts_with("TERM=")).count(), 1);
        assert!(env.contains(&String::from("X=1")) && env.contains(&String::from("container=openvz")));
    }
}
