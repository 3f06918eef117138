//! One run of the machine: QEMU's command line, what comes out of it, and its certain end.

use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use super::Error;
use super::accelerator::Accelerator;
use super::disk::{self, Disk, Moment, Torn};
use super::image::{Image, make_ext4};
use super::recipe::Recipe;
use crate::wait::wait_until;

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
        self.listen(self.start(&drive(&self.vz()?, "off"), Stdio::null())?, limit, out)
    }

    /// Boots, and cuts its power at a moment after it has said the words; `None` where it ended before. `survives` is asked for each block of `/vz` that was
    /// written and not flushed by then.
    ///
    /// # Errors
    /// QEMU cannot run, or the machine did not say them in time; the disk's file cannot be read or written.
    pub fn cut_power(
        &self,
        words: &str,
        moment: Moment,
        limit: Duration,
        survives: impl FnMut() -> bool,
        out: &mut dyn Write,
    ) -> Result<Option<Torn>, Error> {
        let file = fs_err::OpenOptions::new().read(true).write(true).open(self.vz()?)?.into_parts().0;
        let (socket, qemus) = UnixStream::pair()?;
        let fails_at = Arc::new(AtomicUsize::new(usize::MAX));
        let disk = Disk::new(file, Arc::clone(&fails_at));
        let served = thread::spawn(|| disk.serve(socket));
        let mut child = self.start(disk::DRIVE, OwnedFd::from(qemus).into())?;
        let cut = self.hear_words(&mut child, words, limit, out)?;
        if cut {
            thread::sleep(moment.after);
            fails_at.store(moment.blocks, Ordering::Relaxed);
            if !wait_until(Duration::from_secs(10), || served.is_finished()) {
                writeln!(out, "   it has flushed sooner each time: power goes all the same")?;
            }
        }
        drop(child); // SIGKILL
        let disk = served.join().map_err(|_| io::Error::other("the disk's thread panicked"))??;
        Ok(if cut { Some(disk.cut(survives)?) } else { None })
    }

    /// Passes on what it says until it has said the words; whether it has.
    fn hear_words(
        &self,
        child: &mut Running,
        words: &str,
        limit: Duration,
        out: &mut dyn Write,
    ) -> Result<bool, Error> {
        let parts = hear(&mut child.0);
        let (start, mut heard) = (Instant::now(), Vec::new());
        loop {
            match parts.recv_timeout(Duration::from_secs(1)) {
                Ok(part) => {
                    out.write_all(&part)?;
                    out.flush()?;
                    heard.extend(part);
                    if heard.windows(words.len()).any(|window| window == words.as_bytes()) {
                        return Ok(true);
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return Ok(false),
                Err(RecvTimeoutError::Timeout) if start.elapsed() > limit => {
                    let console = self.console.display().to_string();
                    return Err(Error::Silent { what: "did not come to write", limit, console });
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    fn start(&self, vz: &str, stdin: Stdio) -> Result<Running, Error> {
        let mut command = self.command(vz);
        // Not `stdio`: with no input it counts as hung up, and the machine waits for someone to listen.
        command.args(["-chardev", "file,id=out,path=/dev/stdout", "-device", "virtserialport,chardev=out,name=output"]);
        Ok(Running(command.stdin(stdin).stdout(Stdio::piped()).spawn()?))
    }

    /// Boots with this terminal as its console, for a person; returns when it is off.
    ///
    /// # Errors
    /// QEMU cannot run.
    pub fn run_interactive(&self) -> Result<ExitStatus, Error> {
        let mut command = self.command(&drive(&self.vz()?, "off"));
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

    /// The file of the disk of `/vz`: that of the machine whose power was cut, or a new one.
    fn vz(&self) -> Result<PathBuf, Error> {
        let vz = self.directory.join("vz.img");
        if !vz.exists() {
            let quota = ["-L", "vz", "-O", "quota,project", "-E", "quotatype=usrquota:grpquota:prjquota"];
            make_ext4(&vz, &format!("{}G", self.recipe.vz_disk_gib), &quota, None)?;
        }
        Ok(vz)
    }

    /// `vz` is the drive of `/vz`.
    fn command(&self, vz: &str) -> Command {
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
        let (root, payload) = (drive(&self.image.disk(), "on"), drive(&self.directory.join("payload.img"), "off"));
        for disk in [&root, vz, &payload] {
            command.args(["-drive", disk]);
        }
        command.args(["-device", "virtio-serial-pci", "-device", "virtio-rng-pci"]);
        command.arg("-chardev").arg(format!("file,id=results,path={}", self.results().display()));
        command.args(["-device", "virtserialport,chardev=results,name=results"]);
        command
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
