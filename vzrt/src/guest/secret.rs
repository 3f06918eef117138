//! Passwords, from the command line to the form they are stored in.

use std::fmt;
use std::io;

use rustix::rand::{GetRandomFlags, getrandom};
use sha_crypt::{ROUNDS_DEFAULT, Sha512Params, sha512_crypt_b64};
use zeroize::Zeroizing;

use super::accounts::{BadUserName, UserName};

/// A password as somebody typed it. Overwritten in memory when dropped, and never printed.
#[derive(Clone)]
pub struct Password(Zeroizing<String>);

/// A password as `/etc/shadow` has it (crypt(5)). Overwritten in memory when dropped, and never printed.
#[derive(Clone)]
pub struct SecretHash(Zeroizing<String>);

/// A password that can't be used. Says nothing of what is in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadSecret {
    /// There is no colon.
    #[error("not of the form user:password")]
    NoColon,
    /// The part before the colon.
    #[error("user:password names no user")]
    User(#[source] BadUserName),
    /// Nothing after the colon: an account that anyone can enter.
    #[error("the password is empty")]
    Empty,
    /// A line end or another control character, which no login prompt can pass on.
    #[error("the password has a control character in it")]
    ControlCharacter,
    /// Not what crypt(3) makes.
    #[error("not an encrypted password")]
    NotAHash,
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(hidden)")
    }
}

impl fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretHash(hidden)")
    }
}

impl Password {
    /// Takes a password that was typed; the caller's copy is the caller's to overwrite.
    ///
    /// # Errors
    /// Empty, or with control characters.
    pub fn new(plain: &str) -> Result<Self, BadSecret> {
        match plain {
            "" => Err(BadSecret::Empty),
            _ if plain.contains(|c: char| c.is_ascii_control()) => Err(BadSecret::ControlCharacter),
            _ => Ok(Self(Zeroizing::new(plain.to_owned()))),
        }
    }
}

impl SecretHash {
    /// Takes a password that is encrypted already (`--crypted`).
    ///
    /// # Errors
    /// It is not of the form `$METHOD$…`, or has a character that would end its field.
    pub fn from_crypted(text: &str) -> Result<Self, BadSecret> {
        let legal = |b: u8| b.is_ascii_graphic() && !matches!(b, b':' | b'!' | b'*' | b'\\');
        let is_hash = text.starts_with('$') && text.matches('$').count() >= 3 && text.len() <= 384;
        if is_hash && text.bytes().all(legal) {
            Ok(Self(Zeroizing::new(text.to_owned())))
        } else {
            Err(BadSecret::NotAHash)
        }
    }

    /// The text for `/etc/shadow`, also for the pipe to the process inside the container.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

/// Splits the argument of `--userpasswd`, at the first colon: passwords have colons, users have not.
///
/// # Errors
/// See [`BadSecret`].
pub fn split_user_password(text: &str) -> Result<(UserName, Password), BadSecret> {
    let (user, password) = text.split_once(':').ok_or(BadSecret::NoColon)?;
    Ok((user.parse().map_err(BadSecret::User)?, Password::new(password)?))
}

/// Encrypts a password on the host, so that it never gets into the container as it is: SHA-512 crypt with a random salt and the usual 5000
/// rounds. Every C library since 2007 understands it; yescrypt, the default of today's distributions, is unknown to those of the last decade.
///
/// # Errors
/// The kernel has no random numbers.
pub fn hash_password(password: &Password) -> io::Result<SecretHash> {
    const ALPHABET: &[u8; 64] = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut random = [0_u8; 16];
    // Sixteen bytes come in one piece once the pool is ready (getrandom(2)), and the call waits until it is.
    getrandom(&mut random, GetRandomFlags::empty())?;
    let salt: String = random.iter().map(|b| char::from(ALPHABET[usize::from(b & 63)])).collect();
    Ok(crypt(password, &salt))
}

pub(super) fn crypt(password: &Password, salt: &str) -> SecretHash {
    let params = Sha512Params::new(ROUNDS_DEFAULT).expect("the default number of rounds is allowed");
    let hash = sha512_crypt_b64(password.0.as_bytes(), salt.as_bytes(), &params).expect("any bytes have a hash");
    let hash = Zeroizing::new(hash);
    SecretHash(Zeroizing::new(format!("$6${salt}${}", hash.as_str())))
}
