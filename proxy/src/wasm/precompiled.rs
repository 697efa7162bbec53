//! Machine code of components, and why it is believed. To load it is to run it, so it must be this proxy's own: either it
//! has just come out of the compiling process that we started, or out of a file whose authentication code is right.
//!
//! One of the two rooms where `unsafe` is allowed, for one call.

#![allow(unsafe_code)]

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use hmac::{Hmac, Mac};
use sha2::Sha256;
use wasmtime::Engine;
use wasmtime::component::Component;
use zeroize::Zeroizing;

const KEY_BYTES: usize = 32;
const CODE_BYTES: usize = 32;
/// Sets these authentication codes apart from any other under the same key.
const PURPOSE: &[u8] = b"latchkey compiled component, 1\0";

/// Of which component this is the code, and for which engine.
pub(super) type Name = [u8; 32];

/// Code that this proxy has made.
pub(super) struct Authentic(Vec<u8>);

impl Authentic {
    /// `bytes` are what our compiling process, of this same program, wrote into our pipe.
    pub(super) fn from_compiler(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// Fails where it was made for another engine or wasmtime: that is checked there, not believed.
    pub(super) fn load(&self, engine: &Engine) -> wasmtime::Result<Component> {
        // SAFETY: `deserialize` wants what wasmtime's `precompile_component` has made, unaltered since. An `Authentic` is
        // made in two ways only, both in this file. `from_compiler` takes the output of a process of this very program,
        // which nobody else could write to. `Key::open` takes bytes whose HMAC-SHA-256 is right, under a key of 256
        // random bits in a file of mode 0600, over the name that was asked for and every byte of the code: only a process
        // of this user can have made it, and only from what `from_compiler` had given it. Nothing that comes through an
        // API ends up here.
        unsafe { Component::deserialize(engine, &self.0) }
    }
}

/// Authenticates the files. It is this host's and this user's, and never leaves its file.
pub(super) struct Key(Zeroizing<[u8; KEY_BYTES]>);

impl Key {
    /// The key in that file, or a new one in its place if it is missing, damaged, or others could have read it: then no
    /// file of before is believed any more.
    pub(super) fn open_or_make(path: &Path) -> io::Result<Self> {
        match Self::read(path) {
            Ok(Some(key)) => return Ok(key),
            Ok(None) => {
                tracing::warn!(file = %path.display(), "the key of compiled plugins is damaged, or others may have read it; it is replaced")
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        fs::File::open("/dev/urandom")?.read_exact(&mut *key)?;
        // Two proxies of one folder, in an upgrade: who renames last wins, and the other's files are made again.
        let partial = path.with_extension(format!("{}.partial", std::process::id()));
        let _ = fs::remove_file(&partial);
        let written = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&partial)
            .and_then(|mut file| file.write_all(&*key))
            .and_then(|()| fs::rename(&partial, path));
        if let Err(error) = written {
            let _ = fs::remove_file(&partial);
            return Err(error);
        }
        Ok(Self(key))
    }

    fn read(path: &Path) -> io::Result<Option<Self>> {
        let mut file = OpenOptions::new().read(true).open(path)?;
        if file.metadata()?.mode() & 0o077 != 0 {
            return Ok(None);
        }
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        let whole = file.read_exact(&mut *key).is_ok() && file.read(&mut [0])? == 0;
        Ok(whole.then_some(Self(key)))
    }

    /// As a file holds it: the authentication code, then the machine code.
    pub(super) fn seal(&self, name: &Name, code: &Authentic) -> Vec<u8> {
        let tag = self.mac(name, &code.0).finalize().into_bytes();
        [&tag[..], &code.0].concat()
    }

    /// None if it was altered, cut, made under another key, or is the code of another component.
    pub(super) fn open(&self, name: &Name, mut sealed: Vec<u8>) -> Option<Authentic> {
        let (tag, code) = sealed.split_first_chunk::<CODE_BYTES>()?;
        self.mac(name, code).verify_slice(tag).ok()?;
        sealed.drain(..CODE_BYTES);
        Some(Authentic(sealed))
    }

    fn mac(&self, name: &Name, code: &[u8]) -> Hmac<Sha256> {
        // A key of the block's length: it takes any, this one without an error.
        let mut block = Zeroizing::new([0; 64]);
        block[..KEY_BYTES].copy_from_slice(&*self.0);
        Hmac::<Sha256>::new((&*block).into()).chain_update(PURPOSE).chain_update(name).chain_update(code)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const NAME: Name = [7; 32];

    fn key(folder: &Path) -> Key {
        Key::open_or_make(&folder.join("key")).unwrap()
    }

    #[test]
    fn only_what_was_sealed_under_this_key_and_name_opens() {
        let folder = tempfile::tempdir().unwrap();
        let key = key(folder.path());
        let sealed = key.seal(&NAME, &Authentic::from_compiler(b"code".to_vec()));
        assert_eq!(key.open(&NAME, sealed.clone()).unwrap().0, b"code");
        assert!(key.open(&[8; 32], sealed.clone()).is_none(), "another component's");
        for at in 0..sealed.len() {
            let mut altered = sealed.clone();
            altered[at] ^= 1;
            assert!(key.open(&NAME, altered).is_none(), "byte {at}");
            assert!(key.open(&NAME, sealed[..at].to_vec()).is_none(), "cut at {at}");
        }
        assert!(key.open(&NAME, [&sealed[..], b"x"].concat()).is_none());
        let other = tempfile::tempdir().unwrap();
        assert!(self::key(other.path()).open(&NAME, sealed).is_none());
    }

    #[test]
    fn a_key_is_kept_unless_it_is_damaged_or_others_may_know_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let bytes = |key: &Key| *key.0;
        let first = bytes(&key(folder.path()));
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(bytes(&key(folder.path())), first);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let second = bytes(&key(folder.path()));
        assert_ne!(second, first);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        for damaged in [vec![], vec![1; KEY_BYTES - 1], vec![1; KEY_BYTES + 1]] {
            fs::write(&path, damaged).unwrap();
            assert_ne!(bytes(&key(folder.path())), second);
        }
    }

    #[test]
    fn what_is_authentic_and_no_code_is_refused_by_the_engine() {
        let error = Authentic::from_compiler(b"no code".to_vec()).load(&Engine::default()).err().unwrap();
        assert!(!format!("{error:#}").is_empty());
    }
}
