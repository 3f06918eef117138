//! What `ps` shows of us.

use std::io::{Seek, SeekFrom, Write};

/// Shows this process as what it is. The arguments of a process are read from its own memory, between two addresses that /proc/self/stat
/// tells; writing there through /proc/self/mem needs no privilege.
pub fn title(title: &str) {
    let name = title.split(':').next().and_then(|name| std::ffi::CString::new(name).ok()).unwrap_or_default();
    let _ = nix::sys::prctl::set_name(&name);
    if write(title).is_none() {
        tracing::debug!("this process keeps the command line of the command that started it");
    }
}

fn write(title: &str) -> Option<()> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // Fields 48 to 51 of proc_pid_stat(5): arg_start, arg_end, env_start, env_end.
    let mut fields = stat.rsplit_once(") ")?.1.split(' ').skip(45).map(str::parse::<u64>);
    let mut next = || fields.next()?.ok();
    let (start, end, env_start, env_end) = (next()?, next()?, next()?, next()?);
    let arguments = usize::try_from(end.checked_sub(start)?).ok()?;
    let whole = if env_start == end { usize::try_from(env_end.checked_sub(start)?).ok()? } else { arguments };
    let mut memory = std::fs::OpenOptions::new().write(true).open("/proc/self/mem").ok()?;
    memory.seek(SeekFrom::Start(start)).ok()?;
    memory.write_all(&filled(title, arguments, whole)?).ok()
}

/// What to write over the arguments, which have room for `arguments` bytes. A longer title goes on in the environment behind them, up to
/// `whole`: where the last byte of the arguments is not the end of a string, the kernel shows what follows up to one (get_mm_cmdline, Linux
/// 4.2 and later).
fn filled(title: &str, arguments: usize, whole: usize) -> Option<Vec<u8>> {
    let mut bytes = title.as_bytes().to_vec();
    bytes.truncate(whole.checked_sub(1)?);
    bytes.resize(arguments.max(bytes.len() + 1), 0);
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::filled;

    #[test]
    fn a_short_title_fills_the_arguments_and_a_long_one_goes_on_in_the_environment() {
        assert_eq!(filled("ab", 5, 9), Some(b"ab\0\0\0".to_vec()));
        assert_eq!(filled("abcdef", 5, 9), Some(b"abcdef\0".to_vec()));
        assert_eq!(filled("abcdefghijk", 5, 9), Some(b"abcdefgh\0".to_vec()));
        assert_eq!(filled("abc", 0, 0), None);
    }
}
