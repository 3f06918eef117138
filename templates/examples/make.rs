//! Makes caches and trees: `make <template area> <name>...`, then prints where the trees are and how long they took.

use std::time::Instant;

use templates::{Bar, Store, TemplateName};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let store = Store::open(arguments.next().ok_or("usage: make <template area> <name>...")?);
    for name in arguments {
        let name: TemplateName = name.parse()?;
        let begun = Instant::now();
        let (archive, tree) = store.create_cache(&name, &mut Bar::new(name.as_str()))?;
        println!(
            "{} ({} bytes) -> {} in {:?}",
            archive.path.display(),
            archive.size(),
            tree.layers[0].display(),
            begun.elapsed()
        );
        let begun = Instant::now();
        store.tree(&store.find(&name)?, &mut Bar::new(name.as_str()))?;
        println!("found again in {:?}", begun.elapsed());
    }
    Ok(())
}
