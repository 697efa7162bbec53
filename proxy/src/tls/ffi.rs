//! The one room where `unsafe` is allowed: what OpenSSL can do and its Rust binding does not offer.

#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_int, c_long, c_uchar};
use std::sync::{Arc, LazyLock};

use contract::tickets::KeyName;
use foreign_types::ForeignTypeRef;
use openssl::cipher::Cipher;
use openssl::cipher_ctx::CipherCtxRef;
use openssl::error::ErrorStack;
use openssl::ex_data::Index;
use openssl::hash::MessageDigest;
use openssl::rand::rand_bytes;
use openssl::ssl::{SslContext, SslContextBuilder, SslRef, SslSessionRef};
use pingora::tls::ssl_sys;
use zeroize::Zeroizing;

use super::tickets::{Protection, Protects};

type TicketKeyCallback = unsafe extern "C" fn(
    *mut ssl_sys::SSL,
    *mut c_uchar,
    *mut c_uchar,
    *mut ssl_sys::EVP_CIPHER_CTX,
    *mut ssl_sys::EVP_MAC_CTX,
    c_int,
) -> c_int;

unsafe extern "C" {
    fn SSL_CTX_set_tlsext_ticket_key_evp_cb(
        context: *mut ssl_sys::SSL_CTX,
        callback: Option<TicketKeyCallback>,
    ) -> c_int;
    fn RSA_padding_check_PKCS1_OAEP_mgf1(
        to: *mut c_uchar,
        to_bytes: c_int,
        padded: *const c_uchar,
        padded_bytes: c_int,
        modulus_bytes: c_int,
        label: *const c_uchar,
        label_bytes: c_int,
        digest: *const ssl_sys::EVP_MD,
        mgf1_digest: *const ssl_sys::EVP_MD,
    ) -> c_int;
    fn SSL_SESSION_set_timeout(session: *mut ssl_sys::SSL_SESSION, seconds: c_long) -> c_long;
    fn OSSL_PARAM_construct_utf8_string(key: *const c_char, text: *mut c_char, size: usize) -> ssl_sys::OSSL_PARAM;
}

/// An extension of the ClientHello that is being looked at, as it was sent. Nothing outside the callbacks that OpenSSL
/// makes while it looks at one.
pub(super) fn client_hello_extension(ssl: &SslRef, kind: u32) -> Option<&[u8]> {
    let (mut bytes, mut length) = (std::ptr::null(), 0);
    // SAFETY: `ssl` is a live SSL object, and the two out-parameters are ours. OpenSSL answers 0 where it holds no
    // ClientHello.
    let found = unsafe { ssl_sys::SSL_client_hello_get0_ext(ssl.as_ptr(), kind, &raw mut bytes, &raw mut length) };
    if found != 1 || bytes.is_null() || length == 0 {
        return (found == 1).then_some(&[]);
    }
    // SAFETY: OpenSSL says that `length` bytes stand there. They belong to the SSL object and are freed when its
    // handshake goes on, which takes an exclusive borrow of it: it can't happen while the returned slice borrows `ssl`.
    Some(unsafe { std::slice::from_raw_parts(bytes, length) })
}

/// What RSA-OAEP with SHA-256 (RFC 8017 section 7.1.2, no label) carries, of a block that somebody else has decrypted; in constant
/// time. `None` where the padding is wrong.
pub(crate) fn unpad_oaep_sha256(padded: &[u8], modulus_bytes: usize) -> Option<Zeroizing<Vec<u8>>> {
    let (length, modulus) = (c_int::try_from(padded.len()).ok()?, c_int::try_from(modulus_bytes).ok()?);
    let mut out = Zeroizing::new(vec![0; modulus_bytes]);
    let digest = MessageDigest::sha256();
    // SAFETY: OpenSSL writes at most `modulus` bytes to `out`, which has as many, and reads `length` bytes of `padded`. It
    // refuses a `length` beyond `modulus`. The label is empty, and the digests live for ever.
    let written = unsafe {
        RSA_padding_check_PKCS1_OAEP_mgf1(
            out.as_mut_ptr(),
            modulus,
            padded.as_ptr(),
            length,
            modulus,
            std::ptr::null(),
            0,
            digest.as_ptr(),
            digest.as_ptr(),
        )
    };
    // What is wrong stays in OpenSSL's queue for this thread, where the next handshake would find it.
    drop(ErrorStack::get());
    out.truncate(usize::try_from(written).ok()?);
    Some(out)
}

/// How long a new session may be resumed.
pub(super) fn set_session_timeout(session: &SslSessionRef, seconds: u32) {
    // SAFETY: `session` is live. The call takes the session's own lock where it is shared.
    unsafe { SSL_SESSION_set_timeout(session.as_ptr(), c_long::from(seconds)) };
}

/// The group of the key exchange, by its name in IANA's registry; of a session that TLS 1.2 resumed, of the handshake that
/// it is from.
pub(super) fn group(ssl: &SslRef) -> Option<&CStr> {
    // SAFETY: `ssl` is a live SSL object, which the call only reads.
    let name = unsafe { ssl_sys::SSL_get0_group_name(ssl.as_ptr()) };
    // SAFETY: a name is a NUL-terminated string in the table of groups of the object's context, which lives at least as
    // long as the borrow of `ssl` and does not change.
    (!name.is_null()).then(|| unsafe { CStr::from_ptr(name) })
}

type Keys = Arc<dyn Protects>;

static KEYS: LazyLock<Result<Index<SslContext, Keys>, ErrorStack>> = LazyLock::new(SslContext::new_ex_index);

/// Has session tickets (RFC 5077, RFC 8446 section 4.6.1) protected by AES-256-CBC and HMAC-SHA-256 under keys of ours.
pub(super) fn set_ticket_keys(context: &mut SslContextBuilder, keys: Keys) -> Result<(), ErrorStack> {
    let index = KEYS.as_ref().map_err(Clone::clone)?;
    context.set_ex_data(*index, keys);
    // SAFETY: the context is live, and `on_ticket` has the signature that OpenSSL documents.
    match unsafe { SSL_CTX_set_tlsext_ticket_key_evp_cb(context.as_ptr(), Some(on_ticket)) } {
        1 => Ok(()),
        _ => Err(ErrorStack::get()),
    }
}

/// What OpenSSL is told: no ticket, or a full handshake instead.
const NONE: c_int = 0;
const READY: c_int = 1;
/// Decrypting only: this ticket is good, and the client gets a new one.
const READY_AND_RENEW: c_int = 2;
const FAILED: c_int = -1;

/// `SSL_CTX_set_tlsext_ticket_key_evp_cb(3)`. A panic would end the process, not unwind into C.
unsafe extern "C" fn on_ticket(
    ssl: *mut ssl_sys::SSL,
    name: *mut c_uchar,
    iv: *mut c_uchar,
    cipher: *mut ssl_sys::EVP_CIPHER_CTX,
    mac: *mut ssl_sys::EVP_MAC_CTX,
    encrypts: c_int,
) -> c_int {
    // SAFETY: OpenSSL calls this with a live SSL object and a cipher context that is nobody else's, both valid until we
    // return, and keeps no other Rust reference to either: the handshake that we are called from has lent them to it.
    let (ssl, cipher) = unsafe { (SslRef::from_ptr(ssl), CipherCtxRef::from_ptr_mut(cipher)) };
    let keys = KEYS.as_ref().ok().and_then(|index| ssl.ssl_context().ex_data(*index));
    let Some(keys) = keys else {
        return NONE;
    };
    if encrypts == 1 {
        let Some((used, protection)) = keys.protect(ssl) else {
            return NONE;
        };
        let mut fresh = [0; 16];
        if rand_bytes(&mut fresh).is_err()
            || cipher.encrypt_init(Some(Cipher::aes_256_cbc()), Some(protection.cipher_key()), Some(&fresh)).is_err()
            || init_mac(mac, &protection).is_err()
        {
            return FAILED;
        }
        // SAFETY: when it encrypts, OpenSSL hands out buffers to be filled: 16 bytes for the key's name and
        // EVP_MAX_IV_LENGTH, 16 as well, for the IV. Neither overlaps what is copied.
        unsafe {
            std::ptr::copy_nonoverlapping(used.0.as_ptr(), name, used.0.len());
            std::ptr::copy_nonoverlapping(fresh.as_ptr(), iv, fresh.len());
        }
        return READY;
    }
    // SAFETY: when it decrypts, both point into a ticket that OpenSSL has found to be long enough for 16 bytes of name and
    // 16 bytes of IV. They are read only.
    let (name, iv) = unsafe { (name.cast::<[u8; 16]>().read(), iv.cast::<[u8; 16]>().read()) };
    let Some((protection, renew)) = keys.open(ssl, &KeyName(name)) else {
        return NONE;
    };
    if cipher.decrypt_init(Some(Cipher::aes_256_cbc()), Some(protection.cipher_key()), Some(&iv)).is_err()
        || init_mac(mac, &protection).is_err()
    {
        return FAILED;
    }
    if renew { READY_AND_RENEW } else { READY }
}

fn init_mac(mac: *mut ssl_sys::EVP_MAC_CTX, protection: &Protection) -> Result<(), ErrorStack> {
    let mut digest = *b"SHA256\0";
    let key = protection.mac_key();
    // SAFETY: `mac` is the HMAC context that OpenSSL handed to the callback which calls this. The parameters name a
    // NUL-terminated string that outlives the call (size 0: "up to the NUL"), end with the end marker, and are only read;
    // the key is copied.
    let done = unsafe {
        let parameters = [
            OSSL_PARAM_construct_utf8_string(c"digest".as_ptr(), digest.as_mut_ptr().cast(), 0),
            ssl_sys::OSSL_PARAM_construct_end(),
        ];
        ssl_sys::EVP_MAC_init(mac, key.as_ptr(), key.len(), parameters.as_ptr())
    };
    if done == 1 { Ok(()) } else { Err(ErrorStack::get()) }
}
