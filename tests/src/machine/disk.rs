//! A disk with a volatile write cache, as real ones are: what was flushed outlives a power cut, and of what was written since then each block does or
//! does not, in no order.
//!
//! No cache mode of QEMU is like that: a write that QEMU has made is in the host's file or its page cache, and the death of QEMU takes neither. So the disk is a server of
//! the [NBD protocol] on a socket, which QEMU has for its standard input, and the cut takes back what the machine has not flushed.
//!
//! [NBD protocol]: https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// What survives whole or not at all: ext4 writes no less than its blocks.
const BLOCK_BYTES: u64 = 4096;

/// For QEMU's `-drive`, with the socket as its standard input. `writeback`: the machine is told that there is a cache, and its flushes come here.
pub(super) const DRIVE: &str =
    "if=virtio,format=raw,cache=writeback,file.driver=nbd,file.server.type=fd,file.server.str=0";

const MAGIC: u64 = 0x4E42_444D_4147_4943;
const OPTION: u64 = 0x4948_4156_454F_5054;
const OPTION_REPLY: u64 = 0x0003_E889_0455_65A9;
const REQUEST: u32 = 0x2560_9513;
const REPLY: u32 = 0x6744_6698;
const FIXED_NEWSTYLE: u16 = 1;
const GO: u32 = 7;
const ACK: u32 = 1;
const INFO: u32 = 3;
const UNSUPPORTED: u32 = (1 << 31) + 1;
const READ: u16 = 0;
const WRITE: u16 = 1;
const FLUSH: u16 = 3;
/// Nothing is offered that a disk could be without: no discarding, and no write that passes the cache, which QEMU makes of a write and a flush.
const HAS_FLAGS_AND_FLUSH: u16 = 1 | 1 << 2;

/// How the socket of a QEMU ends that was killed in the middle of whatever.
const GONE: [io::ErrorKind; 3] =
    [io::ErrorKind::UnexpectedEof, io::ErrorKind::BrokenPipe, io::ErrorKind::ConnectionReset];

/// One block that was written and not yet flushed.
struct Written {
    offset: u64,
    before: Vec<u8>,
    after: Vec<u8>,
}

/// When power goes.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// So long after the machine has said that it is at work,
    pub after: Duration,
    /// and then as soon as so many blocks were written that are not flushed.
    pub blocks: usize,
}

/// What a power cut did to the blocks that were not flushed.
#[derive(Debug, Clone, Copy, Default)]
pub struct Torn {
    /// These are on the disk all the same.
    pub kept: usize,
    /// These are not.
    pub lost: usize,
}

/// The disk. It lives as long as the machine.
pub(super) struct Disk {
    file: File,
    unflushed: Vec<Written>,
    fails_at: Arc<AtomicUsize>,
}

impl Disk {
    /// A disk whose content is a file. It fails as soon as `fails_at` blocks, or more, wait to be flushed: power goes at a write.
    pub(super) fn new(file: File, fails_at: Arc<AtomicUsize>) -> Self {
        Self { file, unflushed: Vec::new(), fails_at }
    }

    /// Serves until it fails or QEMU is gone. A request that has not come in whole was not made.
    ///
    /// # Errors
    /// The file can't be read or written, or who asks does not speak the protocol.
    pub(super) fn serve(mut self, mut socket: UnixStream) -> io::Result<Self> {
        let mut served = self.greet(&mut socket);
        while served.is_ok() && self.unflushed.len() < self.fails_at.load(Ordering::Relaxed) {
            served = self.answer(&mut socket);
        }
        match served {
            Err(e) if !GONE.contains(&e.kind()) => Err(e),
            _ => Ok(self),
        }
    }

    /// Power is gone. `survives` is asked for each block that was not flushed, in the order in which they were written.
    ///
    /// # Errors
    /// The file can't be written.
    pub(super) fn cut(self, mut survives: impl FnMut() -> bool) -> io::Result<Torn> {
        for block in self.unflushed.iter().rev() {
            self.file.write_all_at(&block.before, block.offset)?;
        }
        let mut torn = Torn::default();
        for block in &self.unflushed {
            if survives() {
                self.file.write_all_at(&block.after, block.offset)?;
                torn.kept += 1;
            } else {
                torn.lost += 1;
            }
        }
        Ok(torn)
    }

    fn write(&mut self, mut offset: u64, mut data: &[u8]) -> io::Result<()> {
        while !data.is_empty() {
            let to_boundary = usize::try_from(BLOCK_BYTES - offset % BLOCK_BYTES).unwrap_or(data.len());
            let (block, rest) = data.split_at(to_boundary.min(data.len()));
            let mut before = vec![0; block.len()];
            self.file.read_exact_at(&mut before, offset)?;
            self.file.write_all_at(block, offset)?;
            self.unflushed.push(Written { offset, before, after: block.to_vec() });
            offset += block.len() as u64;
            data = rest;
        }
        Ok(())
    }

    /// The fixed newstyle handshake: all options but the one that begins are declined, which every client must bear.
    fn greet(&self, socket: &mut UnixStream) -> io::Result<()> {
        socket.write_all(&[&MAGIC.to_be_bytes()[..], &OPTION.to_be_bytes(), &FIXED_NEWSTYLE.to_be_bytes()].concat())?;
        word::<4>(socket)?; // the client's flags
        loop {
            expect(u64::from_be_bytes(word(socket)?), OPTION)?;
            let (option, length) = (word::<4>(socket)?, u32::from_be_bytes(word(socket)?));
            io::copy(&mut socket.take(length.into()), &mut io::sink())?;
            let mut reply = |kind: u32, data: &[u8]| {
                let length = (data.len() as u32).to_be_bytes();
                socket
                    .write_all(&[&OPTION_REPLY.to_be_bytes()[..], &option, &kind.to_be_bytes(), &length, data].concat())
            };
            if u32::from_be_bytes(option) != GO {
                reply(UNSUPPORTED, &[])?;
                continue;
            }
            let size = self.file.metadata()?.len().to_be_bytes();
            reply(INFO, &[&0_u16.to_be_bytes()[..], &size, &HAS_FLAGS_AND_FLUSH.to_be_bytes()].concat())?;
            return reply(ACK, &[]);
        }
    }

    /// One request.
    fn answer(&mut self, socket: &mut UnixStream) -> io::Result<()> {
        expect(u32::from_be_bytes(word(socket)?).into(), REQUEST.into())?;
        word::<2>(socket)?; // flags of commands that were not offered
        let kind = u16::from_be_bytes(word(socket)?);
        let handle = word::<8>(socket)?;
        let offset = u64::from_be_bytes(word(socket)?);
        let mut data = vec![0; u32::from_be_bytes(word(socket)?) as usize];
        match kind {
            READ => self.file.read_exact_at(&mut data, offset)?,
            WRITE => {
                socket.read_exact(&mut data)?;
                self.write(offset, &data)?;
                data.clear();
            }
            FLUSH => self.unflushed.clear(),
            // It leaves.
            _ => return Err(io::ErrorKind::UnexpectedEof.into()),
        }
        socket.write_all(&[&REPLY.to_be_bytes()[..], &0_u32.to_be_bytes(), &handle, &data].concat())
    }
}

fn word<const BYTES: usize>(socket: &mut UnixStream) -> io::Result<[u8; BYTES]> {
    let mut word = [0; BYTES];
    socket.read_exact(&mut word)?;
    Ok(word)
}

fn expect(word: u64, magic: u64) -> io::Result<()> {
    if word == magic {
        Ok(())
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidData, format!("{word:#x} is not NBD")))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that fails here has failed")]
mod tests {
    use super::*;

    fn disk() -> (tempfile::NamedTempFile, Disk) {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(4 * BLOCK_BYTES).unwrap();
        let disk = Disk::new(file.reopen().unwrap(), Arc::new(AtomicUsize::new(usize::MAX)));
        (file, disk)
    }

    fn content(file: &tempfile::NamedTempFile) -> Vec<u8> {
        fs_err::read(file.path()).unwrap().chunks(BLOCK_BYTES as usize).map(|block| block[0]).collect()
    }

    #[test]
    fn what_was_flushed_survives_and_of_the_rest_what_the_toss_says() {
        let (file, mut disk) = disk();
        disk.write(0, &[1; 4 * 4096]).unwrap();
        disk.unflushed.clear();
        disk.write(0, &[2; 2 * 4096]).unwrap();
        disk.write(4096, &[3; 2 * 4096]).unwrap();
        assert_eq!(content(&file), [2, 3, 3, 1]);
        // In the order of writing: blocks 0 and 1, then 1 and 2.
        let mut tosses = [true, true, false, false].into_iter();
        let torn = disk.cut(|| tosses.next().unwrap()).unwrap();
        assert_eq!((content(&file), torn.kept, torn.lost), (vec![2, 2, 1, 1], 2, 2));
    }

    #[test]
    fn a_write_across_the_boundary_of_a_block_is_two() {
        let (file, mut disk) = disk();
        disk.write(4000, &[7; 200]).unwrap();
        let mut first = true;
        disk.cut(|| std::mem::take(&mut first)).unwrap();
        let bytes = fs_err::read(file.path()).unwrap();
        assert_eq!(bytes.iter().filter(|byte| **byte == 7).count(), 96);
    }
}
