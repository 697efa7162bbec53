//! The edge's private key in a PKCS #11 token: it never comes into this process. The only room that names `cryptoki`. Must
//! never try a PIN again that was refused, use a key that the token would give away, or take a token that is away for a
//! bundle that does not open.

mod sessions;

use std::path::PathBuf;

use contract::sealed::{EdgeKey, KeyError, OpenError, Unwrap};
use cryptoki::mechanism::rsa::{PkcsMgfType, PkcsOaepParams, PkcsOaepSource};
use cryptoki::mechanism::{Mechanism, MechanismType};
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::Session;
use zeroize::Zeroizing;

use self::sessions::{Failed, Sessions};
use crate::tls::unpad_oaep_sha256;

/// Of a key that is made in a token.
const PUBLIC_EXPONENT: [u8; 3] = [1, 0, 1];

/// Where the key is.
#[derive(Clone)]
pub struct Settings {
    /// The token's library.
    pub module: PathBuf,
    pub token: TokenName,
    pub key: KeyName,
    pub pin: Zeroizing<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenName {
    Label(String),
    /// As the library numbers them; for libraries that keep the number.
    Slot(u64),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyName {
    Label(String),
    /// `CKA_ID`
    Id(Vec<u8>),
}

#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    #[error("{0}")]
    Failed(String),
    /// It may come back.
    #[error("{0}")]
    Gone(String),
    #[error("the token refuses the PIN of pin_file ({0}); it is not tried again")]
    Pin(String),
    #[error("the token has no RSA private key {0}; `latchkey-proxy keygen --in-token` makes one")]
    NoKey(String),
    #[error("the token has {1} RSA private keys {0}; name one by key_id")]
    SeveralKeys(String, usize),
    #[error("the token has a key {0} already")]
    Exists(String),
    #[error("the token's key {0} is {1}: make a new one")]
    Unfit(String, &'static str),
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error("the token's key does not open what was sealed to it: {0}")]
    Trial(OpenError),
}

/// How the token unwraps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// All of RSA-OAEP with SHA-256 within the token.
    Oaep,
    /// The private-key operation in the token, the padding here: of a token whose OAEP is SHA-1 only.
    Raw,
}

struct Token {
    sessions: Sessions,
    way: Way,
    modulus: Vec<u8>,
}

impl Unwrap for Token {
    fn unwrap(&self, encrypted_key: &[u8]) -> Result<Option<Zeroizing<Vec<u8>>>, String> {
        // Tokens call a number beyond the modulus a fault of theirs.
        if encrypted_key.len() != self.modulus.len() || *encrypted_key >= *self.modulus {
            return Ok(None);
        }
        let decrypted = self.sessions.with(|session, key| {
            let decrypted = match self.way {
                Way::Oaep => session.decrypt(&Mechanism::RsaPkcsOaep(oaep()), key, encrypted_key),
                Way::Raw => session.decrypt(&Mechanism::RsaX509, key, encrypted_key),
            };
            decrypted.map(Zeroizing::new)
        });
        match (decrypted, self.way) {
            (Ok(secret), Way::Oaep) => Ok(Some(secret)),
            (Ok(padded), Way::Raw) => Ok(unpad_oaep_sha256(&padded, self.modulus.len())),
            (Err(Failed::NotForKey), _) => Ok(None),
            (Err(Failed::Away(says)), _) => Err(says),
        }
    }
}

fn oaep() -> PkcsOaepParams<'static> {
    PkcsOaepParams::new(MechanismType::SHA256, PkcsMgfType::MGF1_SHA256, PkcsOaepSource::empty())
}

/// Finds the key, and tries it: a token that can't do what is asked of it is refused at start.
pub fn open(settings: Settings) -> Result<EdgeKey, TokenError> {
    let named = settings.key.clone();
    let sessions = Sessions::open(settings, find)?;
    let (modulus, exponent) = sessions
        .with(|session, key| Ok(facts(session, key)))
        .map_err(|failed| TokenError::Failed(failed.to_string()))?
        .map_err(|unfit| TokenError::Unfit(named.to_string(), unfit))?;
    let modulus: Vec<u8> = modulus.into_iter().skip_while(|byte| *byte == 0).collect();
    let way = way(&sessions);
    let token = Token { sessions, way, modulus: modulus.clone() };
    let key = EdgeKey::elsewhere(&modulus, &exponent, Box::new(token))?;
    key.try_out().map_err(TokenError::Trial)?;
    tracing::info!(kid = key.kid(), ?way, "the edge's key is in a token");
    Ok(key)
}

/// OAEP with SHA-256 where the token takes it: it says so only when it is asked to begin.
fn way(sessions: &Sessions) -> Way {
    let begun = sessions.with(|session, key| Ok(session.decrypt_init(&Mechanism::RsaPkcsOaep(oaep()), key).is_ok()));
    // The session has an operation under way now, which none of the others has.
    sessions.forget();
    if begun.unwrap_or(false) { Way::Oaep } else { Way::Raw }
}

/// Makes a key pair in the token, which can't be read out of it: the public key in PEM.
pub fn generate(settings: Settings, bits: u32) -> Result<EdgeKey, TokenError> {
    let named = settings.key.clone();
    match open(settings.clone()) {
        Err(TokenError::NoKey(_)) => {}
        Ok(_) | Err(TokenError::SeveralKeys(..) | TokenError::Unfit(..)) => {
            return Err(TokenError::Exists(named.to_string()));
        }
        Err(error) => return Err(error),
    }
    sessions::generate(&settings, |session| {
        let name = match &settings.key {
            KeyName::Label(label) => Attribute::Label(label.clone().into_bytes()),
            KeyName::Id(id) => Attribute::Id(id.clone()),
        };
        let public = [
            Attribute::Token(true),
            Attribute::Private(false),
            Attribute::Encrypt(true),
            Attribute::ModulusBits(u64::from(bits).into()),
            Attribute::PublicExponent(PUBLIC_EXPONENT.to_vec()),
            name.clone(),
        ];
        let private = [
            Attribute::Token(true),
            Attribute::Private(true),
            Attribute::Sensitive(true),
            Attribute::Extractable(false),
            Attribute::Decrypt(true),
            Attribute::Sign(false),
            name,
        ];
        session.generate_key_pair(&Mechanism::RsaPkcsKeyPairGen, &public, &private).map(drop)
    })?;
    open(settings)
}

/// The one key of that name.
fn find(session: &Session, name: &KeyName) -> Result<ObjectHandle, FindError> {
    let mut template = vec![Attribute::Class(ObjectClass::PRIVATE_KEY), Attribute::KeyType(KeyType::RSA)];
    template.push(match name {
        KeyName::Label(label) => Attribute::Label(label.clone().into_bytes()),
        KeyName::Id(id) => Attribute::Id(id.clone()),
    });
    let found = session.find_objects(&template)?;
    match found.as_slice() {
        [key] => Ok(*key),
        [] => Err(FindError::None),
        several => Err(FindError::Several(several.len())),
    }
}

enum FindError {
    None,
    Several(usize),
    Token(cryptoki::error::Error),
}

impl From<cryptoki::error::Error> for FindError {
    fn from(error: cryptoki::error::Error) -> Self {
        Self::Token(error)
    }
}

/// Modulus and public exponent, of a key that decrypts and that the token keeps for itself.
fn facts(session: &Session, key: ObjectHandle) -> Result<(Vec<u8>, Vec<u8>), &'static str> {
    let wanted = [
        AttributeType::Modulus,
        AttributeType::PublicExponent,
        AttributeType::Sensitive,
        AttributeType::Extractable,
        AttributeType::Decrypt,
    ];
    let (mut modulus, mut exponent) = (Vec::new(), Vec::new());
    for attribute in session.get_attributes(key, &wanted).map_err(|_| "not to be looked at")? {
        match attribute {
            Attribute::Modulus(bytes) => modulus = bytes,
            Attribute::PublicExponent(bytes) => exponent = bytes,
            Attribute::Sensitive(false) => return Err("not sensitive (CKA_SENSITIVE): the token would show it"),
            Attribute::Extractable(true) => return Err("extractable (CKA_EXTRACTABLE): the token would give it away"),
            Attribute::Decrypt(false) => return Err("not for decryption (CKA_DECRYPT)"),
            _ => {}
        }
    }
    if modulus.is_empty() || exponent.is_empty() {
        return Err("without modulus or public exponent");
    }
    Ok((modulus, exponent))
}

impl std::fmt::Display for KeyName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Label(label) => write!(f, "`{label}`"),
            Self::Id(id) => id.iter().try_for_each(|byte| write!(f, "{byte:02x}")),
        }
    }
}
