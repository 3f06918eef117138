//! Compiles the BPF programs of `bpf/` with clang, and names the lot by its sources.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use sha2::{Digest, Sha256};

fn main() {
    println!("cargo:rerun-if-changed=bpf");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo says where"));
    let headers = PathBuf::from(env::var_os("DEP_BPF_INCLUDE").expect("libbpf-sys says where its headers are"));
    let mut sources: Vec<PathBuf> =
        fs::read_dir("bpf").expect("beancounters/bpf is there").map(|entry| entry.expect("readable").path()).collect();
    sources.sort();

    // Of the sources and not of the objects, which have the paths of this build in them: vzctl and the loader are built apart, and must agree.
    let mut digest = Sha256::new();
    sources.iter().for_each(|source| digest.update(fs::read(source).expect("readable")));
    let build: String = digest.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let mut list = String::from("&[\n");
    for source in sources.iter().filter(|path| path.to_string_lossy().ends_with(".bpf.c")) {
        let object = out.join(source.with_extension("o").file_name().expect("a file"));
        compile(source, &object, &headers, &build);
        list += &format!("    include_bytes!({object:?}),\n");
    }
    list += "]\n";
    fs::write(out.join("objects.rs"), list).expect("OUT_DIR is writable");
    println!("cargo:rustc-env=VZ_BPF_BUILD={build}");
}

fn compile(source: &Path, object: &Path, headers: &Path, build: &str) {
    let mut clang = Command::new("clang");
    // Version 3 of the instructions (kernel 5.12): compare and swap.
    clang.args(["-target", "bpf", "-mcpu=v3", "-O2", "-g", "-Wall", "-Werror", "-D__TARGET_ARCH_x86"]);
    clang.arg(format!("-DVZ_BUILD=0x{build}ULL"));
    clang.arg("-I").arg(headers).arg("-c").arg(source).arg("-o").arg(object);
    match clang.status() {
        Ok(status) if status.success() => {}
        Ok(status) => panic!("clang could not compile {}: {status}", source.display()),
        Err(error) => {
            panic!("clang cannot be run ({error}). The BPF programs need it: install the package clang (make deps)")
        }
    }
}
