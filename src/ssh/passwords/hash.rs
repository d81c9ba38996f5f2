//! Passwords and what is kept of them: sha256-crypt and sha512-crypt (crypt(5)).

use sha_crypt::{PasswordHasher, PasswordVerifier, ShaCrypt};
use subtle::ConstantTimeEq;

use crate::config::{MAX_PASSWORD, User, check_password_hash};

/// 12 bytes are 16 characters, all that crypt(5) uses.
const SALT: usize = 12;
/// Checked in place of the hash of a user who does not exist, so that both take as long.
const NOBODY: &str =
    "$6$myelin.nobody$FYlYXchdNuuSwlebkcW6ha5P0W98l25ilh/yyKrGGcL1tsaay7vM.8BFDzoNOslBblwPq/RC7S3l3giqSRm471";

/// One password to check. It takes time and belongs on another thread.
pub struct Check(Option<User>);

impl Check {
    pub(super) fn new(user: Option<User>) -> Self {
        Self(user)
    }

    /// Whether this is the user's password, in a time that tells nothing of it.
    pub fn is_right(&self, password: &[u8]) -> bool {
        let password = password.get(..MAX_PASSWORD.min(password.len())).unwrap_or_default();
        let (hash, plain) = match &self.0 {
            Some(user) => (user.password_hash.as_ref(), user.password.as_ref()),
            None => (None, None),
        };
        let hash = hash.map_or(NOBODY, |hash| hash.expose());
        let hash_is_right = verify(password, hash);
        match (&self.0, plain) {
            (None, _) => false,
            (Some(user), Some(plain)) if user.password_hash.is_none() => {
                plain.expose().as_bytes().ct_eq(password).into()
            }
            (Some(user), _) if is_empty(user) => password.is_empty(),
            (Some(_), _) => hash_is_right,
        }
    }
}

fn verify(password: &[u8], hash: &str) -> bool {
    // A thousand connections a second cannot spend milliseconds on arithmetic.
    if cfg!(fuzzing) {
        return false;
    }
    check_password_hash(hash).is_ok() && ShaCrypt::default().verify_password(password, hash).is_ok()
}

/// Whether the user's password is the empty one.
pub(super) fn is_empty(user: &User) -> bool {
    match (&user.password_hash, &user.password) {
        (Some(hash), _) => hash.expose().is_empty(),
        (None, Some(plain)) => plain.expose().is_empty(),
        (None, None) => false,
    }
}

/// The hash of a new password, for the file of users.
pub(super) fn make(password: &[u8]) -> Option<String> {
    let mut salt = [0; SALT];
    getrandom::fill(&mut salt).ok()?;
    let hash = ShaCrypt::SHA512.hash_password_with_salt(password, &salt).ok()?;
    Some(hash.as_str().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;

    fn user(hash: &str) -> Check {
        Check::new(Some(User { password_hash: Some(Secret::new(hash.into())), password: None }))
    }

    #[test]
    fn hashes_of_other_programs_are_understood() {
        // openssl passwd -6 -salt saltsaltsalt secret; the same with -5.
        let sha512 = "$6$saltsaltsalt$PMWE8DTlam1JU37Piyk43bHcMxTJq6sgu5DKB0/tGPjanN35jcY68QkpDfPFUGPWX5uCxIQkSPzMmqEiVNgts.";
        let sha256 = "$5$saltsaltsalt$TihBZCRsJxAxHgKub.mCOdu9X7QLi980jJxe7T2aZg7";
        for hash in [sha512, sha256] {
            assert!(user(hash).is_right(b"secret"), "{hash}");
            assert!(!user(hash).is_right(b"Secret") && !user(hash).is_right(b""));
        }
    }

    #[test]
    fn a_new_hash_fits_its_password_alone() {
        let hash = make("pässword".as_bytes()).unwrap();
        assert!(hash.starts_with("$6$"), "{hash}");
        assert!(user(&hash).is_right("pässword".as_bytes()) && !user(&hash).is_right(b"password"));
        assert_ne!(make(b"x"), make(b"x"), "each has a salt of its own");
    }

    #[test]
    fn nobody_has_no_password() {
        for password in ["", "x", "secret"] {
            assert!(!Check::new(None).is_right(password.as_bytes()));
        }
        let clear = User { password: Some(Secret::new("open".into())), ..User::default() };
        assert!(Check::new(Some(clear.clone())).is_right(b"open"));
        assert!(!Check::new(Some(clear)).is_right(b"opens"));
        assert!(!Check::new(Some(User::default())).is_right(b""));
        assert!(user("").is_right(b"") && !user("").is_right(b"x"), "an empty hash is the empty password");
    }

    #[test]
    fn hashes_that_cannot_be_checked_are_refused() {
        for hash in ["***", "$1$a$b", "$y$j9T$a$b", "$6$rounds=9999999$a$b", "$6$rounds=x$a$b"] {
            assert!(check_password_hash(hash).is_err(), "{hash}");
            assert!(!user(hash).is_right(b"***"));
        }
    }
}
