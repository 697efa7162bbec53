//! Sessions with a token: one for each thread that asks at once, made when they are needed and made anew when the token was
//! away. All of a process share one login (PKCS #11 section 2.6.8).

use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};
use cryptoki::object::ObjectHandle;
use cryptoki::session::{Session, UserType};
use cryptoki::slot::Slot;
use cryptoki::types::AuthPin;

use super::{FindError, KeyName, Settings, TokenError, TokenName};

/// A token that is away is not asked more often: visitors are many.
const REST: Duration = Duration::from_secs(1);

pub(super) struct Sessions {
    settings: Settings,
    find: Find,
    /// Written while the library is begun anew: nobody may be in it then.
    module: RwLock<Pkcs11>,
    state: Mutex<State>,
}

type Find = fn(&Session, &KeyName) -> Result<ObjectHandle, FindError>;

#[derive(Default)]
struct State {
    idle: Vec<Open>,
    /// Grows when sessions are given up: those that are out then are not taken back.
    generation: u64,
    /// Why the token can't be asked, and until when it is left alone; for good where it refused the PIN.
    closed: Option<(String, Option<Instant>)>,
}

struct Open {
    session: Session,
    key: ObjectHandle,
    generation: u64,
}

/// Why something was not done with a session.
enum Trouble {
    /// What was to be decrypted is at fault.
    Data,
    Session(Error),
    /// There was none, and none could be opened.
    Start(TokenError),
}

#[derive(Debug, thiserror::Error)]
pub(super) enum Failed {
    #[error("the token's key does not open it")]
    NotForKey,
    #[error("{0}")]
    Away(String),
}

impl Sessions {
    /// Loads the library and opens the first session, with which all are logged in.
    pub(super) fn open(settings: Settings, find: Find) -> Result<Self, TokenError> {
        let module = RwLock::new(load(&settings)?);
        let sessions = Self { settings, find, module, state: Mutex::default() };
        let first = sessions.start(&sessions.module(), 0)?;
        sessions.lock().idle.push(first);
        Ok(sessions)
    }

    /// Does something with a session and the key; once again where the session turns out to be over.
    pub(super) fn with<T>(&self, work: impl Fn(&Session, ObjectHandle) -> Result<T, Error>) -> Result<T, Failed> {
        let mut says = String::new();
        for _ in 0..2 {
            self.rested()?;
            match self.once(&work) {
                Ok(done) => return Ok(done),
                Err(Trouble::Data) => return Err(Failed::NotForKey),
                Err(Trouble::Session(error)) => says = format!("the token does not do it: {error}"),
                // A library that has lost its token finds it only when it is begun anew.
                Err(Trouble::Start(TokenError::Gone(_))) => self.begin_anew().map_err(|error| self.close(&error))?,
                Err(Trouble::Start(error)) => return Err(self.close(&error)),
            }
        }
        Err(self.close(&TokenError::Gone(says)))
    }

    fn once<T>(&self, work: &impl Fn(&Session, ObjectHandle) -> Result<T, Error>) -> Result<T, Trouble> {
        let module = self.module();
        let (idle, generation) = {
            let mut state = self.lock();
            (state.idle.pop(), state.generation)
        };
        let open = match idle {
            Some(open) => open,
            None => self.start(&module, generation).map_err(Trouble::Start)?,
        };
        match work(&open.session, open.key) {
            Err(error) if !is_of_the_data(&error) => {
                self.give_up(open.generation);
                Err(Trouble::Session(error))
            }
            done => {
                self.give_back(open);
                done.map_err(|_| Trouble::Data)
            }
        }
    }

    /// With one session, which is then there for who comes next.
    fn begin_anew(&self) -> Result<(), TokenError> {
        let module = self.module.write().unwrap_or_else(PoisonError::into_inner);
        let generation = {
            let mut state = self.lock();
            state.generation += 1;
            // Closed while the library still knows them.
            state.idle.clear();
            state.generation
        };
        tracing::warn!("the token that holds the edge's key is gone; its library is begun anew");
        let failed = |error: Error| TokenError::Gone(format!("module {}: {error}", self.settings.module.display()));
        match module.clone().finalize() {
            Ok(()) | Err(Error::Pkcs11(RvError::CryptokiNotInitialized, _)) => {}
            Err(error) => return Err(failed(error)),
        }
        initialize(&module).map_err(failed)?;
        let first = self.start(&module, generation)?;
        self.give_back(first);
        Ok(())
    }

    /// Nobody asks for a while; nor ever again where it refused the PIN: after a few more the token would lock it.
    fn close(&self, error: &TokenError) -> Failed {
        let says = error.to_string();
        let until = (!matches!(error, TokenError::Pin(_))).then(|| Instant::now() + REST);
        self.lock().closed = Some((says.clone(), until));
        Failed::Away(says)
    }

    fn rested(&self) -> Result<(), Failed> {
        let mut state = self.lock();
        match &state.closed {
            Some((says, until)) if until.is_none_or(|until| Instant::now() < until) => Err(Failed::Away(says.clone())),
            _ => {
                state.closed = None;
                Ok(())
            }
        }
    }

    /// Ends those that nobody uses.
    pub(super) fn forget(&self) {
        let idle = std::mem::take(&mut self.lock().idle);
        drop(idle);
    }

    fn give_back(&self, open: Open) {
        let mut state = self.lock();
        if open.generation == state.generation {
            state.idle.push(open);
        }
    }

    /// All that began before: they are over as well, or will find out.
    fn give_up(&self, generation: u64) {
        let mut state = self.lock();
        if generation == state.generation {
            state.generation += 1;
            let idle = std::mem::take(&mut state.idle);
            drop(state);
            drop(idle);
        }
    }

    fn start(&self, module: &Pkcs11, generation: u64) -> Result<Open, TokenError> {
        let session = log_in(module, &self.settings, false)?;
        let key = (self.find)(&session, &self.settings.key).map_err(|error| {
            let named = self.settings.key.to_string();
            match error {
                FindError::None => TokenError::NoKey(named),
                FindError::Several(count) => TokenError::SeveralKeys(named, count),
                FindError::Token(error) => failed("the token can't be searched", error),
            }
        })?;
        Ok(Open { session, key, generation })
    }

    fn module(&self) -> RwLockReadGuard<'_, Pkcs11> {
        self.module.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// With a session that may write.
pub(super) fn generate(
    settings: &Settings,
    make: impl FnOnce(&Session) -> Result<(), Error>,
) -> Result<(), TokenError> {
    let session = log_in(&load(settings)?, settings, true)?;
    make(&session).map_err(|error| TokenError::Failed(format!("the token makes no key: {error}")))
}

fn load(settings: &Settings) -> Result<Pkcs11, TokenError> {
    let failed = |error: Error| TokenError::Failed(format!("module {}: {error}", settings.module.display()));
    let module = Pkcs11::new(&settings.module).map_err(failed)?;
    initialize(&module).map_err(failed)?;
    Ok(module)
}

fn initialize(module: &Pkcs11) -> Result<(), Error> {
    match module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
        Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => Ok(()),
        initialized => initialized,
    }
}

fn log_in(module: &Pkcs11, settings: &Settings, writes: bool) -> Result<Session, TokenError> {
    let slot = slot(module, &settings.token)?;
    let session = if writes { module.open_rw_session(slot) } else { module.open_ro_session(slot) };
    let session = session.map_err(|error| failed("the token opens no session", error))?;
    let pin = AuthPin::new(settings.pin.as_str().into());
    use RvError::{PinExpired, PinIncorrect, PinInvalid, PinLenRange, PinLocked, UserAlreadyLoggedIn};
    match session.login(UserType::User, Some(&pin)) {
        Ok(()) | Err(Error::Pkcs11(UserAlreadyLoggedIn, _)) => Ok(session),
        Err(Error::Pkcs11(error @ (PinIncorrect | PinLocked | PinExpired | PinInvalid | PinLenRange), _)) => {
            Err(TokenError::Pin(error.to_string()))
        }
        Err(error) => Err(failed("the token takes no login", error)),
    }
}

fn failed(what: &str, error: Error) -> TokenError {
    use RvError::{CryptokiNotInitialized, DeviceError, DeviceRemoved, GeneralError, SlotIdInvalid};
    use RvError::{TokenNotPresent, TokenNotRecognized};
    let says = format!("{what}: {error}");
    match error {
        Error::Pkcs11(
            CryptokiNotInitialized
            | DeviceError
            | DeviceRemoved
            | GeneralError
            | SlotIdInvalid
            | TokenNotPresent
            | TokenNotRecognized,
            _,
        ) => TokenError::Gone(says),
        _ => TokenError::Failed(says),
    }
}

fn slot(module: &Pkcs11, name: &TokenName) -> Result<Slot, TokenError> {
    let slots = module.get_slots_with_token().map_err(|error| failed("tokens can't be listed", error))?;
    let mut labels = Vec::new();
    for slot in slots {
        let label = module.get_token_info(slot).map(|info| info.label().trim_end().to_owned()).unwrap_or_default();
        let is_it = match name {
            TokenName::Label(wanted) => *wanted == label,
            TokenName::Slot(number) => *number == slot.id(),
        };
        if is_it {
            return Ok(slot);
        }
        labels.push(format!("`{label}` (slot {})", slot.id()));
    }
    let wanted = match name {
        TokenName::Label(label) => format!("`{label}`"),
        TokenName::Slot(number) => format!("in slot {number}"),
    };
    let there = if labels.is_empty() { "none".to_owned() } else { labels.join(", ") };
    Err(TokenError::Gone(format!("there is no token {wanted}; there is {there}")))
}

/// What was to be decrypted is at fault, and not the token.
fn is_of_the_data(error: &Error) -> bool {
    use RvError::{DataInvalid, DataLenRange, EncryptedDataInvalid, EncryptedDataLenRange};
    matches!(error, Error::Pkcs11(DataInvalid | DataLenRange | EncryptedDataInvalid | EncryptedDataLenRange, _))
}
