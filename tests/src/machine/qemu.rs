//! One run of the machine: QEMU's command line, what comes out of it, and its certain end.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use super::Error;
use super::accelerator::Accelerator;
use super::image::{Image, make_ext4};
use super::recipe::Recipe;

/// From power on to the first word; ten times what it takes.
const BOOT_LIMIT: Duration = Duration::from_secs(180);

/// A machine with nothing in it but processors and memory, that ends where others would boot again.
pub(super) const BARE: [&str; 9] = [
    "-M",
    "q35,sata=off,smbus=off,i8042=off",
    "-nodefaults",
    "-no-user-config",
    "-display",
    "none",
    "-no-reboot",
    "-nic",
    "none",
];

/// Everything one run reads and writes; removed when it ends.
#[derive(Debug)]
pub struct Machine<'a> {
    /// What it is made of.
    pub recipe: &'a Recipe,
    /// What it boots from.
    pub image: &'a Image,
    /// The tree QEMU lives in.
    pub qemu: &'a Path,
    /// How it runs.
    pub accelerator: Accelerator,
    /// A directory of this run's own, with `payload.img` in it.
    pub directory: &'a Path,
    /// The kernel's and QEMU's messages.
    pub console: PathBuf,
}

impl Machine<'_> {
    /// Where the tar archive that the machine sends ends up.
    pub fn results(&self) -> PathBuf {
        self.directory.join("results.tar")
    }

    /// Boots, passes on what it says, and returns when it is off.
    ///
    /// # Errors
    /// QEMU cannot run, or the machine did not boot or end in time (it is then killed).
    pub fn run(&self, limit: Duration, out: &mut dyn Write) -> Result<ExitStatus, Error> {
        self.listen(self.start()?, limit, out)
    }

    /// Boots, and kills QEMU this long after the machine has said the words; returns whether it came to that. With `cache=unsafe` what
    /// the machine has submitted to its disk is in the host's file then, flushed or not; what it only cached is lost.
    ///
    /// # Errors
    /// QEMU cannot run, or the machine did not say them in time.
    pub fn cut_power(&self, words: &str, after: Duration, limit: Duration, out: &mut dyn Write) -> Result<bool, Error> {
        let mut said = Cut { words, heard: Vec::new(), out };
        let mut child = self.start()?;
        let heard = hear(&mut child.0);
        let start = Instant::now();
        loop {
            match heard.recv_timeout(Duration::from_secs(1)) {
                Ok(word) if said.take(&word)? => {
                    thread::sleep(after);
                    child.0.kill()?; // SIGKILL
                    child.0.wait()?;
                    return Ok(true);
                }
                Err(RecvTimeoutError::Disconnected) => return Ok(false),
                _ if start.elapsed() > limit => {
                    let console = self.console.display().to_string();
                    return Err(Error::Silent { what: "did not come to write", limit, console });
                }
                Ok(_) | Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    fn start(&self) -> Result<Running, Error> {
        let mut command = self.command()?;
        // Not `stdio`: with no input it counts as hung up, and the machine waits for someone to listen.
        command.args(["-chardev", "file,id=out,path=/dev/stdout", "-device", "virtserialport,chardev=out,name=output"]);
        Ok(Running(command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?))
    }

    /// Boots with this terminal as its console, for a person; returns when it is off.
    ///
    /// # Errors
    /// QEMU cannot run.
    pub fn run_interactive(&self) -> Result<ExitStatus, Error> {
        let mut command = self.command()?;
        command.args(["-chardev", "stdio,id=out,signal=off", "-device", "virtconsole,chardev=out"]);
        Ok(Running(command.spawn()?).0.wait()?)
    }

    fn listen(&self, mut child: Running, limit: Duration, out: &mut dyn Write) -> Result<ExitStatus, Error> {
        let words = hear(&mut child.0);
        let start = Instant::now();
        let silent = |what, limit| Error::Silent { what, limit, console: self.console.display().to_string() };
        let mut heard = false;
        loop {
            match words.recv_timeout(Duration::from_secs(1)) {
                Ok(word) => {
                    heard = true;
                    out.write_all(&word)?;
                    out.flush()?;
                }
                Err(RecvTimeoutError::Disconnected) => return Ok(child.0.wait()?),
                Err(RecvTimeoutError::Timeout) if !heard && start.elapsed() > BOOT_LIMIT => {
                    return Err(silent("did not boot", BOOT_LIMIT));
                }
                Err(RecvTimeoutError::Timeout) if start.elapsed() > limit => return Err(silent("did not end", limit)),
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    fn command(&self) -> Result<Command, Error> {
        let vz = self.directory.join("vz.img");
        let size = format!("{}G", self.recipe.vz_disk_gib);
        // There already, it is that of the machine whose power was cut.
        if !vz.exists() {
            let quota = ["-L", "vz", "-O", "quota,project", "-E", "quotatype=usrquota:grpquota:prjquota"];
            make_ext4(&vz, &size, &quota, None)?;
        }

        let mut command = unpacked(&self.qemu.join("tree"));
        command.env("TMPDIR", self.directory); // what snapshot=on writes
        command.args(self.accelerator.arguments()).args(BARE);
        command.arg("-smp").arg(self.recipe.cpus.to_string()).arg("-m").arg(format!("{}M", self.recipe.memory_mib));
        command.arg("-kernel").arg(self.image.kernel()).arg("-initrd").arg(self.image.initrd());
        // edd: asking for disks that are not there takes the BIOS a minute. mitigations: nobody attacks this machine.
        // panic=-1 with -no-reboot: a crashed kernel ends QEMU at once.
        command.args([
            "-append",
            "root=/dev/vda rw console=ttyS0 edd=off mitigations=off panic=-1 loglevel=4 systemd.show_status=auto",
        ]);
        command.arg("-serial").arg(chardev_file(&self.console));
        for (disk, keep_changes) in
            [(self.image.disk(), "on"), (vz, "off"), (self.directory.join("payload.img"), "off")]
        {
            command.arg("-drive").arg(drive(&disk, keep_changes));
        }
        command.args(["-device", "virtio-serial-pci", "-device", "virtio-rng-pci"]);
        command.arg("-chardev").arg(format!("file,id=results,path={}", self.results().display()));
        command.args(["-device", "virtserialport,chardev=results,name=results"]);
        Ok(command)
    }
}

/// No flush ever reaches the host's disk, and what a run writes to the kept image goes to an unlinked file.
fn drive(disk: &Path, snapshot: &str) -> String {
    format!("file={},if=virtio,format=raw,cache=unsafe,discard=unmap,snapshot={snapshot}", disk.display())
}

fn chardev_file(path: &Path) -> String {
    format!("file:{}", path.display())
}

/// QEMU from a tree that was unpacked, not installed: by its own loader, with its own libraries and firmware.
/// The kernel kills it when we die, however we die.
pub(super) fn unpacked(tree: &Path) -> Command {
    let libraries = tree.join("usr/lib/x86_64-linux-gnu");
    let path = format!("{}:{}", libraries.display(), libraries.join("pulseaudio").display());
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]).arg(tree.join("usr/lib64/ld-linux-x86-64.so.2"));
    command.arg("--library-path").arg(path).arg(tree.join("usr/bin/qemu-system-x86_64"));
    command.arg("-L").arg(tree.join("usr/share/qemu")).arg("-L").arg(tree.join("usr/share/seabios"));
    command
}

/// A QEMU that does not outlive the function that started it.
pub(super) struct Running(pub(super) Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Passes on what is said, and knows certain words in it.
struct Cut<'a> {
    words: &'a str,
    heard: Vec<u8>,
    out: &'a mut dyn Write,
}

impl Cut<'_> {
    /// Whether the words were said.
    fn take(&mut self, part: &[u8]) -> Result<bool, Error> {
        self.out.write_all(part)?;
        self.out.flush()?;
        self.heard.extend(part);
        Ok(self.heard.windows(self.words.len()).any(|window| window == self.words.as_bytes()))
    }
}

fn hear(child: &mut Child) -> Receiver<Vec<u8>> {
    let (send, words) = mpsc::channel();
    let mut stdout = child.stdout.take();
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Some(read) = stdout.as_mut().and_then(|from| from.read(&mut buffer).ok()).filter(|&read| read > 0) {
            if send.send(buffer[..read].to_vec()).is_err() {
                break; // nobody listens any more
            }
        }
    });
    words
}
