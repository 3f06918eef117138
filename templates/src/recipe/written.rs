//! A recipe as it is written: whole, or as what it has beyond another one.

use serde::Deserialize;

use super::{Bootstrap, Bounds, Command, Directory, FileContent, Link, Recipe, RecipeError, Services};

/// The text of a recipe. What it says counts; what it does not say is the other one's; its lists are added to that one's.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Written {
    name: String,
    /// The recipe that it begins with.
    pub(super) like: Option<String>,
    description: Option<String>,
    distribution: Option<String>,
    bootstrap: Option<Bootstrap>,
    limits: Option<Bounds>,
    #[serde(default)]
    remove: Vec<String>,
    #[serde(default)]
    directories: Vec<Directory>,
    #[serde(default)]
    files: Vec<FileContent>,
    #[serde(default)]
    links: Vec<Link>,
    #[serde(default)]
    services: Services,
    #[serde(default)]
    commands: Vec<Command>,
}

impl Written {
    /// The whole recipe, over the one that it is like; `origin` is for messages.
    pub(super) fn over(self, like: Option<Recipe>, origin: &str) -> Result<Recipe, RecipeError> {
        let missing = |field| RecipeError::Invalid {
            origin: origin.to_owned(),
            field,
            value: String::new(),
            why: "is missing, and there is no `like`",
        };
        let Some(like) = like else {
            return Ok(Recipe {
                name: self.name,
                description: self.description.ok_or_else(|| missing("description"))?,
                distribution: self.distribution.ok_or_else(|| missing("distribution"))?,
                bootstrap: self.bootstrap.ok_or_else(|| missing("bootstrap"))?,
                limits: self.limits.unwrap_or_default(),
                remove: self.remove,
                directories: self.directories,
                files: self.files,
                links: self.links,
                services: self.services,
                commands: self.commands,
            });
        };
        Ok(Recipe {
            name: self.name,
            description: self.description.unwrap_or(like.description),
            distribution: self.distribution.unwrap_or(like.distribution),
            bootstrap: self.bootstrap.unwrap_or(like.bootstrap),
            limits: self.limits.unwrap_or(like.limits),
            remove: [like.remove, self.remove].concat(),
            directories: [like.directories, self.directories].concat(),
            files: [like.files, self.files].concat(),
            links: [like.links, self.links].concat(),
            services: Services {
                enable: [like.services.enable, self.services.enable].concat(),
                disable: [like.services.disable, self.services.disable].concat(),
                mask: [like.services.mask, self.services.mask].concat(),
            },
            commands: [like.commands, self.commands].concat(),
        })
    }
}
