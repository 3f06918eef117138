//! Extended headers of POSIX.1-2001 (`x` and `g` members).
//!
//! The `tar` crate has a reader for them that takes a newline for the end of a record. Values are binary (file
//! capabilities may hold the byte 10), and a record that two readers see differently can hide a size from one of them,
//! so the lengths are followed here.

use super::member::{self, Refusal, shown};

/// What the extended headers before a member say about it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Pax {
    pub(super) path: Option<Vec<u8>>,
    pub(super) linkpath: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u64>,
    pub(super) gid: Option<u64>,
    pub(super) mtime: Option<(i64, u32)>,
    /// Name (without `SCHILY.xattr.`) and value.
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) sparse: SparseKeys,
}

/// The three generations of `GNU.sparse.*` (GNU tar manual, "Storing Sparse Files").
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct SparseKeys {
    /// 0.1 and 1.0: the real name; the member's own is made up.
    pub(super) name: Option<Vec<u8>>,
    /// 0.x and 1.0.
    pub(super) real_size: Option<u64>,
    /// 0.1: `offset,length,…`. 0.0 repeats two keys, collected here the same way.
    pub(super) map: Option<Vec<u64>>,
    /// 1.0: the map is at the head of the data.
    pub(super) map_in_data: bool,
}

/// A malformed record.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed;

impl Pax {
    /// Reads the records of one `x` member.
    pub(super) fn parse(data: &[u8]) -> Result<Self, Malformed> {
        let mut pax = Self::default();
        for record in records(data) {
            let (key, value) = record?;
            pax.take(key, value)?;
        }
        Ok(pax)
    }

    fn take(&mut self, key: &[u8], value: &[u8]) -> Result<(), Malformed> {
        match key {
            b"path" => self.path = Some(value.to_vec()),
            b"linkpath" => self.linkpath = Some(value.to_vec()),
            b"size" => self.size = Some(number(value)?),
            b"uid" => self.uid = Some(number(value)?),
            b"gid" => self.gid = Some(number(value)?),
            b"mtime" => self.mtime = Some(member::pax_time(value).ok_or(Malformed)?),
            b"GNU.sparse.name" => self.sparse.name = Some(value.to_vec()),
            b"GNU.sparse.size" | b"GNU.sparse.realsize" => self.sparse.real_size = Some(number(value)?),
            b"GNU.sparse.major" => self.sparse.map_in_data = number(value)? == 1,
            b"GNU.sparse.map" => {
                let numbers: Result<_, _> = value.split(|&b| b == b',').map(number).collect();
                self.sparse.map = Some(numbers?);
            }
            b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => {
                self.sparse.map.get_or_insert_default().push(number(value)?);
            }
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    self.xattrs.push((name.to_vec(), value.to_vec()));
                }
            }
        }
        Ok(())
    }
}

/// A `g` header may carry remarks (git writes a commit there); one that changes all later members is refused, for no
/// writer of templates makes such.
pub(super) fn check_global(data: &[u8]) -> Result<(), Refusal> {
    for record in records(data) {
        match record {
            Ok((b"comment" | b"atime" | b"ctime" | b"charset" | b"hdrcharset", _)) => {}
            Ok((key, _)) => return Err(Refusal::GlobalHeader { key: shown(key) }),
            Err(Malformed) => return Err(Refusal::GlobalHeader { key: String::from("(malformed)") }),
        }
    }
    Ok(())
}

/// Splits `LENGTH key=value\n` records; the length counts the whole record.
fn records(mut data: &[u8]) -> impl Iterator<Item = Result<(&[u8], &[u8]), Malformed>> {
    std::iter::from_fn(move || {
        if data.is_empty() {
            return None;
        }
        let (record, rest) = split_record(data).map_or((Err(Malformed), &data[..0]), |(r, rest)| (Ok(r), rest));
        data = rest;
        Some(record)
    })
}

#[expect(clippy::type_complexity, reason = "a record is a key and a value")]
fn split_record(data: &[u8]) -> Option<((&[u8], &[u8]), &[u8])> {
    let space = data.iter().take(20).position(|&b| b == b' ')?;
    let length = usize::try_from(number(&data[..space]).ok()?).ok()?;
    if length <= space + 1 || length > data.len() {
        return None;
    }
    let (record, rest) = data.split_at(length);
    let body = record[space + 1..].strip_suffix(b"\n")?;
    let equals = body.iter().position(|&b| b == b'=')?;
    Some(((&body[..equals], &body[equals + 1..]), rest))
}

/// Decimal digits and nothing else (`u64::from_str` would take a `+`).
fn number(text: &[u8]) -> Result<u64, Malformed> {
    if !text.iter().all(u8::is_ascii_digit) {
        return Err(Malformed);
    }
    std::str::from_utf8(text).ok().and_then(|t| t.parse().ok()).ok_or(Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_with_newlines_and_equals_signs_are_read_by_their_length() {
        let pax = Pax::parse(b"26 SCHILY.xattr.user.a=\n=\n12 path=a=b\n10 size=5\n").unwrap();
        assert_eq!(pax.xattrs, [(b"user.a".to_vec(), b"\n=".to_vec())]);
        assert_eq!(pax.path.as_deref(), Some(&b"a=b"[..]));
        assert_eq!(pax.size, Some(5));
    }

    #[test]
    fn broken_records_are_malformed() {
        for bad in [
            "9 path=a",
            "99 path=a\n",
            "0 path=a\n",
            "x path=a\n",
            "9 pathxa\n",
            "11 size=+5\n",
            "12 uid=-1\n",
            "18446744073709551616 a=b\n",
        ] {
            assert_eq!(Pax::parse(bad.as_bytes()), Err(Malformed), "{bad:?}");
        }
    }

    #[test]
    fn a_global_header_may_comment_but_not_rename() {
        assert!(check_global(b"13 comment=x\n").is_ok());
        assert!(check_global(b"10 path=x\n").is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(data in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let _ = Pax::parse(&data);
        }
    }
}
