//! The tar structure: one member after the other, every length checked before it is believed.
//!
//! Header blocks are those of the `tar` crate. Its own walk over an archive is not used: it reads extended headers
//! whole into memory whatever size they claim, takes an archive without its end mark for complete, and see
//! [`super::pax`].

use std::io::{self, Read};

use tar::{EntryType, Header};

use super::Limits;
use super::member::{Refusal, shown};
use super::pax::{self, Pax};

const BLOCK: u64 = 512;
/// Extended headers, long names and sparse maps of one member. Linux takes at most 64 KiB per extended attribute.
const MAX_METADATA: u64 = 4 << 20;

/// Pieces of a file with holes: offset and length, ascending.
pub(super) type Segments = Vec<(u64, u64)>;

/// A member as its headers describe it.
pub(super) struct Member {
    pub(super) kind: EntryType,
    pub(super) path: Vec<u8>,
    pub(super) link: Vec<u8>,
    pub(super) uid: u64,
    pub(super) gid: u64,
    pub(super) mode: u32,
    pub(super) mtime: (i64, u32),
    /// Of the file once it is unpacked, holes included.
    pub(super) size: u64,
    /// Where its data goes. `None`: all of it, from 0.
    pub(super) segments: Option<Segments>,
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Reads members from a plain tar stream.
pub(super) struct Reader<R> {
    input: R,
    /// Unread data of the current member, and the padding after it.
    left: u64,
    padding: u64,
    total: u64,
    max_total: u64,
    last: String,
}

impl<R: Read> Reader<R> {
    pub(super) fn new(input: R, limits: &Limits) -> Self {
        Self { input, left: 0, padding: 0, total: 0, max_total: limits.bytes, last: String::new() }
    }

    /// The next member; `None` after the end mark, with nothing but zeros behind it.
    pub(super) fn next(&mut self) -> Result<Option<Member>, Refusal> {
        let (mut long_name, mut long_link, mut extended) = (None, None, None);
        loop {
            self.skip_rest()?;
            let Some(header) = self.header()? else {
                if long_name.is_some() || long_link.is_some() || extended.is_some() {
                    return Err(self.damaged("an extended header with no member after it"));
                }
                return self.end().map(|()| None);
            };
            self.left = header.entry_size().map_err(|e| self.damaged_by(&e))?;
            self.padding = padding(self.left);
            match header.entry_type() {
                EntryType::GNULongName => self.once(&mut long_name)?,
                EntryType::GNULongLink => self.once(&mut long_link)?,
                EntryType::XHeader => self.once(&mut extended)?,
                EntryType::XGlobalHeader => pax::check_global(&self.metadata()?)?,
                // A volume label (`tar -V`).
                kind if kind.as_byte() == b'V' => {}
                _ => return self.member(&header, long_name, long_link, extended).map(Some),
            }
        }
    }

    /// The data of the current member.
    pub(super) fn read_data(&mut self, buffer: &mut [u8]) -> Result<usize, Refusal> {
        let want = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let got = self.read(&mut buffer[..want])?;
        if got == 0 && want > 0 {
            return Err(self.damaged("the data of a member is cut off"));
        }
        self.left -= got as u64;
        Ok(got)
    }

    fn member(
        &mut self,
        header: &Header,
        long_name: Option<Vec<u8>>,
        long_link: Option<Vec<u8>>,
        extended: Option<Vec<u8>>,
    ) -> Result<Member, Refusal> {
        let pax = match extended {
            Some(data) => Pax::parse(&data).map_err(|_| self.damaged("a malformed extended header"))?,
            None => Pax::default(),
        };
        let name = pax.sparse.name.clone().or(pax.path.clone()).or(long_name);
        let path = name.unwrap_or_else(|| header.path_bytes().into_owned());
        self.last = shown(&path);
        if let Some(size) = pax.size {
            self.left = size;
            self.padding = padding(size);
        }
        let field = |n: io::Result<u64>| n.map_err(|e| self.damaged_by(&e));
        let mtime = (super::member::clamp_time(field(header.mtime())?), 0);
        let mut member = Member {
            kind: header.entry_type(),
            link: pax.linkpath.or(long_link).or(header.link_name_bytes().map(|l| l.into_owned())).unwrap_or_default(),
            uid: field(pax.uid.map_or_else(|| header.uid(), Ok))?,
            gid: field(pax.gid.map_or_else(|| header.gid(), Ok))?,
            mode: header.mode().map_err(|e| self.damaged_by(&e))? & 0o7777,
            mtime: pax.mtime.unwrap_or(mtime),
            size: self.left,
            segments: None,
            xattrs: pax.xattrs,
            path,
        };
        // Before ustar a directory was a file whose name ends in a slash.
        if member.kind.is_file() && member.path.ends_with(b"/") {
            member.kind = EntryType::Directory;
        }
        if let Some((size, segments)) = self.sparse(header, pax.sparse)? {
            member.kind = EntryType::Regular;
            (member.size, member.segments) = (size, Some(segments));
        }
        Ok(member)
    }

    /// The real size and the map of a file with holes, of any of the four ways to write one.
    fn sparse(&mut self, header: &Header, keys: pax::SparseKeys) -> Result<Option<(u64, Segments)>, Refusal> {
        let (real_size, numbers) = if header.entry_type().is_gnu_sparse() {
            self.sparse_of_gnu(header)?
        } else if keys.map_in_data {
            (keys.real_size.unwrap_or(0), self.sparse_in_data()?)
        } else if let Some(map) = keys.map {
            (keys.real_size.unwrap_or(0), map)
        } else {
            return Ok(None);
        };
        let segments = check_map(&numbers, real_size, self.left);
        segments.map(|s| Some((real_size, s))).ok_or_else(|| Refusal::Sparse { member: self.last.clone() })
    }

    /// `S` members: four entries in the header, more in blocks before the data that the size does not count.
    fn sparse_of_gnu(&mut self, header: &Header) -> Result<(u64, Vec<u64>), Refusal> {
        let broken = || Refusal::Sparse { member: self.last.clone() };
        let gnu = header.as_gnu().ok_or_else(broken)?;
        let real_size = gnu.real_size().map_err(|_| broken())?;
        let mut numbers = Vec::new();
        let mut more = gnu.is_extended();
        let add = |numbers: &mut Vec<u64>, entries: &[tar::GnuSparseHeader]| -> io::Result<()> {
            for entry in entries.iter().filter(|e| !e.is_empty()) {
                numbers.extend([entry.offset()?, entry.length()?]);
            }
            Ok(())
        };
        add(&mut numbers, &gnu.sparse).map_err(|_| broken())?;
        while more {
            self.check_metadata(numbers.len() as u64 * 8)?;
            let mut block = tar::GnuExtSparseHeader::new();
            self.read_exact(block.as_mut_bytes())?;
            add(&mut numbers, &block.sparse).map_err(|_| Refusal::Sparse { member: self.last.clone() })?;
            more = block.is_extended();
        }
        Ok((real_size, numbers))
    }

    /// Format 1.0: decimal numbers, one per line, the first their count of pairs, padded to a block.
    fn sparse_in_data(&mut self) -> Result<Vec<u64>, Refusal> {
        let broken = |last: &str| Refusal::Sparse { member: last.to_owned() };
        let (mut numbers, mut wanted, mut digits) = (Vec::new(), None, String::new());
        let mut block = [0; BLOCK as usize];
        while wanted.is_none_or(|w: u64| (numbers.len() as u64) < w) {
            if self.left < BLOCK {
                return Err(broken(&self.last));
            }
            self.check_metadata(numbers.len() as u64 * 8)?;
            self.read_exact(&mut block)?;
            self.left -= BLOCK;
            for &byte in &block {
                match byte {
                    b'0'..=b'9' if digits.len() < 20 => digits.push(byte.into()),
                    b'\n' => {
                        let number: u64 = digits.parse().map_err(|_| broken(&self.last))?;
                        digits.clear();
                        match wanted {
                            None => wanted = Some(number.checked_mul(2).ok_or_else(|| broken(&self.last))?),
                            Some(_) => numbers.push(number),
                        }
                    }
                    0 => {}
                    _ => return Err(broken(&self.last)),
                }
                if wanted.is_some_and(|w| numbers.len() as u64 == w) {
                    break;
                }
            }
        }
        Ok(numbers)
    }

    /// Stores the data of an extension member, of which a member may have one of each kind.
    fn once(&mut self, slot: &mut Option<Vec<u8>>) -> Result<(), Refusal> {
        let mut data = self.metadata()?;
        if slot.is_some() {
            return Err(self.damaged("two extended headers of one kind for one member"));
        }
        // Long names end in a NUL; records of a pax header never do.
        if data.last() == Some(&0) {
            data.pop();
        }
        *slot = Some(data);
        Ok(())
    }

    fn metadata(&mut self) -> Result<Vec<u8>, Refusal> {
        self.check_metadata(self.left)?;
        let mut data = vec![0; self.left as usize];
        self.read_exact(&mut data)?;
        self.left = 0;
        Ok(data)
    }

    fn check_metadata(&self, bytes: u64) -> Result<(), Refusal> {
        if bytes > MAX_METADATA {
            return Err(Refusal::Limit { what: String::from("bytes of metadata for one member"), limit: MAX_METADATA });
        }
        Ok(())
    }

    /// A header block; `None` for a block of zeros, which ends the archive.
    fn header(&mut self) -> Result<Option<Header>, Refusal> {
        let mut header = Header::new_old();
        self.read_exact(header.as_mut_bytes())?;
        let bytes = header.as_bytes();
        if bytes.iter().all(|&b| b == 0) {
            return Ok(None);
        }
        // The sum of all bytes, those of the sum itself (148..156) taken as spaces.
        let sum: u32 =
            bytes.iter().enumerate().map(|(i, &b)| u32::from(if (148..156).contains(&i) { b' ' } else { b })).sum();
        match header.cksum() {
            Ok(stored) if stored == sum => Ok(Some(header)),
            _ => Err(self.damaged("a header's checksum is wrong")),
        }
    }

    fn skip_rest(&mut self) -> Result<(), Refusal> {
        let mut left = std::mem::take(&mut self.left)
            .checked_add(std::mem::take(&mut self.padding))
            .ok_or_else(|| self.damaged("a member is larger than any file"))?;
        let mut buffer = [0; 16 << 10];
        while left > 0 {
            let chunk = left.min(buffer.len() as u64);
            self.read_exact(&mut buffer[..chunk as usize])?;
            left -= chunk;
        }
        Ok(())
    }

    /// After the first block of zeros: only zeros (writers fill up their last record).
    fn end(&mut self) -> Result<(), Refusal> {
        let mut buffer = [0; 16 << 10];
        loop {
            match self.read(&mut buffer)? {
                0 => return Ok(()),
                n if buffer[..n].iter().all(|&b| b == 0) => {}
                _ => return Err(Refusal::TrailingGarbage),
            }
        }
    }

    fn read_exact(&mut self, mut buffer: &mut [u8]) -> Result<(), Refusal> {
        while !buffer.is_empty() {
            match self.read(buffer)? {
                0 => return Err(self.damaged("it ends before its end mark")),
                n => buffer = &mut buffer[n..],
            }
        }
        Ok(())
    }

    /// The only place that reads, so the limit on unpacked bytes holds for headers, padding and data alike.
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Refusal> {
        let got = loop {
            match self.input.read(buffer) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                result => break result.map_err(|e| self.damaged_by(&e))?,
            }
        };
        self.total += got as u64;
        if self.total > self.max_total {
            return Err(Refusal::Limit { what: String::from("bytes"), limit: self.max_total });
        }
        Ok(got)
    }

    fn damaged(&self, reason: &str) -> Refusal {
        Refusal::Damaged { after: self.last.clone(), reason: reason.to_owned() }
    }

    fn damaged_by(&self, error: &io::Error) -> Refusal {
        self.damaged(&error.to_string())
    }
}

fn padding(size: u64) -> u64 {
    (BLOCK - size % BLOCK) % BLOCK
}

/// Pairs of offset and length: ascending, within the file, and exactly the data there is.
fn check_map(numbers: &[u64], real_size: u64, data: u64) -> Option<Segments> {
    let (mut at, mut sum) = (0u64, 0u64);
    let mut segments = Vec::with_capacity(numbers.len() / 2);
    for pair in numbers.chunks(2) {
        let &[offset, length] = pair else { return None };
        if offset < at {
            return None;
        }
        at = offset.checked_add(length).filter(|&end| end <= real_size)?;
        sum += length;
        if length > 0 {
            segments.push((offset, length));
        }
    }
    (sum == data).then_some(segments)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_of_holes_must_ascend_fit_and_add_up() {
        assert_eq!(check_map(&[0, 5, 10, 5, 20, 0], 20, 10), Some(vec![(0, 5), (10, 5)]));
        assert_eq!(check_map(&[], 20, 0), Some(vec![]));
        for (numbers, size, data) in [
            (&[0, 5, 3, 5][..], 20, 10),
            (&[0, 5, 10][..], 20, 5),
            (&[0, 21][..], 20, 21),
            (&[u64::MAX, 1][..], 20, 1),
            (&[0, 5][..], 20, 6),
        ] {
            assert_eq!(check_map(numbers, size, data), None, "{numbers:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(data in proptest::collection::vec(proptest::num::u8::ANY, 0..2000)) {
            let mut reader = Reader::new(data.as_slice(), &Limits::default());
            while let Ok(Some(_)) = reader.next() {}
        }
    }
}
