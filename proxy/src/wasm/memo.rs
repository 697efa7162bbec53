//! Answers that plugins have given and stand by: a verdict says what it depends on and for how long it holds, and the same
//! question is then answered without a call. Per thread, so without a lock; bounded in entries and bytes.

use std::cell::RefCell;
use std::hash::{BuildHasher, Hasher};
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};

use hashbrown::DefaultHashBuilder;

use super::types::{Action, Edit, Header, Tenant};
use crate::tls::{Standing, Unwell};

/// What an answer depends on, besides the binding, the hook, how the visitor came, and how the site's certificate stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Parts(u8);

impl Parts {
    pub(super) const HOST: u8 = 1;
    pub(super) const PATH: u8 = 1 << 1;
    pub(super) const QUERY: u8 = 1 << 2;
    pub(super) const BUCKET: u8 = 1 << 3;
    pub(super) const STATUS: u8 = 1 << 4;
    pub(super) const WANTED: u8 = 1 << 5;
    /// Tells the shape of an answer that depends on nothing from none.
    const KNOWN: u8 = 1 << 7;

    pub(super) fn new(bits: u8) -> Self {
        Self(bits | Self::KNOWN)
    }

    pub(super) fn has(self, part: u8) -> bool {
        self.0 & part != 0
    }
}

/// The combinations of parts that answers of one hook depend on. Each is looked for, so there are few.
#[derive(Debug, Default)]
pub(super) struct Shapes(AtomicU32);

impl Shapes {
    pub(super) fn known(&self) -> impl Iterator<Item = Parts> {
        let shapes = self.0.load(Ordering::Relaxed).to_le_bytes();
        shapes.into_iter().take_while(|shape| *shape != 0).map(Parts)
    }

    /// False where there are too many already.
    pub(super) fn learn(&self, shape: Parts) -> bool {
        let mut now = self.0.load(Ordering::Relaxed);
        loop {
            let mut shapes = now.to_le_bytes();
            if shapes.contains(&shape.0) {
                return true;
            }
            let Some(free) = shapes.iter_mut().find(|shape| **shape == 0) else { return false };
            *free = shape.0;
            match self.0.compare_exchange_weak(now, u32::from_le_bytes(shapes), Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(other) => now = other,
            }
        }
    }
}

#[derive(Debug, Clone)]
pub(super) enum Answer {
    /// And which rule decided.
    Action(Action, Option<u32>),
    Edits(Rc<[Edit]>),
}

/// The question, in bytes.
#[derive(Default)]
pub(super) struct Key(Vec<u8>);

const SLOTS: usize = 4096;
const KEY_BYTES_MAX: usize = 512;
const ANSWER_BYTES_MAX: usize = 2048;
/// Of a thread. What is over it goes at once: the next requests fill it anew.
const BYTES_MAX: usize = 4 << 20;
/// An answer is given at most for so long: a day.
const KEPT_MS_MAX: u64 = 86_400_000;

struct Memo {
    hashes: DefaultHashBuilder,
    slots: Vec<Option<Entry>>,
    bytes: usize,
}

struct Entry {
    key: Box<[u8]>,
    /// A clock that was set back to before it prolongs nothing.
    since_ms: u64,
    until_ms: u64,
    answer: Answer,
}

thread_local! {
    static MEMO: RefCell<Memo> =
        RefCell::new(Memo { hashes: DefaultHashBuilder::default(), slots: Vec::new(), bytes: 0 });
    static KEY: RefCell<Key> = RefCell::default();
}

/// Lends out the thread's key, so that making one takes no memory.
pub(super) fn with_key<T>(act: impl FnOnce(&mut Key) -> T) -> T {
    KEY.with_borrow_mut(|key| {
        key.0.clear();
        act(key)
    })
}

impl Key {
    pub(super) fn begin(&mut self, binding: u64, hook: u8, shape: Parts, scalars: u8) {
        self.0.clear();
        self.0.extend_from_slice(&binding.to_le_bytes());
        self.0.extend_from_slice(&[hook, shape.0, scalars]);
    }

    /// Its answers are for nobody else.
    pub(super) fn tenant(&mut self, Tenant(tenant): Tenant) {
        self.0.extend_from_slice(&tenant.to_le_bytes());
    }

    /// Counts always: few answers do not depend on it, and it seldom changes.
    pub(super) fn standing(&mut self, standing: Standing) {
        let (kind, unwell) = match standing {
            Standing::None => (0, None),
            Standing::Healthy => (1, None),
            Standing::RenewalFailing(unwell) => (2, Some(unwell)),
            Standing::Ending(unwell) => (3, Some(unwell)),
            Standing::HandshakeErrors(unwell) => (4, Some(unwell)),
        };
        self.0.push(kind);
        if let Some(Unwell { since, ends }) = unwell {
            self.0.extend_from_slice(&since.to_le_bytes());
            self.0.extend_from_slice(&ends.to_le_bytes());
        }
    }

    pub(super) fn number(&mut self, number: u16) {
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    /// With its length, so that the end of one part is never taken for the begin of the next.
    pub(super) fn text(&mut self, text: Option<&[u8]>) {
        let length = text.map_or(u32::MAX, |text| u32::try_from(text.len()).unwrap_or(u32::MAX - 1));
        self.0.extend_from_slice(&length.to_le_bytes());
        // What is too long for a key need not be copied whole.
        let text = text.unwrap_or_default();
        self.0.extend_from_slice(text.get(..KEY_BYTES_MAX).unwrap_or(text));
    }
}

pub(super) fn look(key: &Key, now_ms: u64) -> Option<Answer> {
    if key.0.len() > KEY_BYTES_MAX {
        return None;
    }
    MEMO.with_borrow(|memo| {
        let entry = memo.slots.get(memo.slot(key))?.as_ref()?;
        (*entry.key == *key.0 && (entry.since_ms..entry.until_ms).contains(&now_ms)).then(|| entry.answer.clone())
    })
}

pub(super) fn keep(key: &Key, now_ms: u64, for_ms: u32, answer: &Answer) {
    let bytes = answer.bytes();
    if key.0.len() > KEY_BYTES_MAX || bytes > ANSWER_BYTES_MAX || for_ms == 0 {
        return;
    }
    let until_ms = now_ms.saturating_add(u64::from(for_ms).min(KEPT_MS_MAX));
    let entry = Entry { key: key.0.as_slice().into(), since_ms: now_ms, until_ms, answer: answer.clone() };
    MEMO.with_borrow_mut(|memo| memo.put(key, entry));
}

impl Memo {
    fn slot(&self, key: &Key) -> usize {
        let mut hasher = self.hashes.build_hasher();
        hasher.write(&key.0);
        usize::try_from(hasher.finish() % SLOTS as u64).unwrap_or_default()
    }

    fn put(&mut self, key: &Key, entry: Entry) {
        if self.slots.is_empty() {
            self.slots.resize_with(SLOTS, || None);
        }
        let bytes = entry.bytes();
        if self.bytes + bytes > BYTES_MAX {
            self.slots.iter_mut().for_each(|slot| *slot = None);
            self.bytes = 0;
        }
        let slot = self.slot(key);
        if let Some(slot) = self.slots.get_mut(slot) {
            self.bytes += bytes;
            self.bytes -= slot.replace(entry).map_or(0, |old| old.bytes());
        }
    }
}

impl Entry {
    fn bytes(&self) -> usize {
        size_of::<Self>() + self.key.len() + self.answer.bytes()
    }
}

impl Answer {
    fn bytes(&self) -> usize {
        match self {
            Self::Action(Action::Next | Action::Deny(_), _) => 0,
            Self::Action(Action::Edit(edits), _) => of_edits(edits),
            Self::Action(Action::Redirect { location, edits, .. }, _) => location.len() + of_edits(edits),
            Self::Action(Action::Respond { headers, body, .. }, _) => {
                let of_header = |header: &Header| size_of::<Header>() + header.name.len() + header.value.len();
                body.len() + headers.iter().map(of_header).sum::<usize>()
            }
            Self::Edits(edits) => of_edits(edits),
        }
    }
}

fn of_edits(edits: &[Edit]) -> usize {
    let of_edit = |edit: &Edit| match edit {
        Edit::Set { name, value } | Edit::Append { name, value } | Edit::SetIfAbsent { name, value } => {
            name.len() + value.len()
        }
        Edit::Remove { name } => name.len(),
    };
    edits.iter().map(|edit| size_of::<Edit>() + of_edit(edit)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(parts: &[&str]) -> Key {
        let mut key = Key::default();
        key.begin(7, 0, Parts::new(Parts::PATH), 1);
        parts.iter().for_each(|part| key.text(Some(part.as_bytes())));
        key
    }

    fn deny(key: &Key, now_ms: u64) -> Option<u16> {
        match look(key, now_ms) {
            Some(Answer::Action(Action::Deny(status), _)) => Some(status),
            None => None,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_answer_holds_until_its_time_is_over() {
        keep(&key(&["/a"]), 1000, 500, &Answer::Action(Action::Deny(403), None));
        assert_eq!(deny(&key(&["/a"]), 1499), Some(403));
        assert_eq!(deny(&key(&["/a"]), 1500), None);
        assert_eq!(deny(&key(&["/b"]), 1000), None);
        assert_eq!(deny(&key(&["/a"]), 999), None, "the clock was set back");
        keep(&key(&["/c"]), 0, u32::MAX, &Answer::Action(Action::Deny(403), None));
        assert_eq!(deny(&key(&["/c"]), KEPT_MS_MAX), None, "at most for a day");
    }

    #[test]
    fn parts_are_never_taken_for_each_other() {
        keep(&key(&["ab", "c"]), 0, 500, &Answer::Action(Action::Deny(400), None));
        assert_eq!((deny(&key(&["a", "bc"]), 0), deny(&key(&["abc"]), 0)), (None, None));
        let mut absent = key(&[]);
        absent.text(None);
        keep(&absent, 0, 500, &Answer::Action(Action::Deny(401), None));
        assert_eq!((deny(&key(&[""]), 0), deny(&absent, 0)), (None, Some(401)));
    }

    #[test]
    fn keeps_no_long_keys_and_no_large_answers() {
        let (fits, long) = ("x".repeat(KEY_BYTES_MAX - 15), "x".repeat(KEY_BYTES_MAX - 14));
        for (path, kept) in [(fits, Some(400)), (long, None), ("x".repeat(9000), None)] {
            keep(&key(&[&path]), 0, 500, &Answer::Action(Action::Deny(400), None));
            assert_eq!(deny(&key(&[&path]), 0), kept, "{} bytes", path.len());
        }
        let respond =
            |bytes| Answer::Action(Action::Respond { status: 200, headers: vec![], body: vec![0; bytes] }, None);
        keep(&key(&["/fits"]), 0, 500, &respond(ANSWER_BYTES_MAX));
        keep(&key(&["/large"]), 0, 500, &respond(ANSWER_BYTES_MAX + 1));
        assert!(look(&key(&["/fits"]), 0).is_some() && look(&key(&["/large"]), 0).is_none());
    }

    #[test]
    fn stays_within_its_bytes() {
        let answer =
            Answer::Action(Action::Respond { status: 200, headers: vec![], body: vec![0; ANSWER_BYTES_MAX] }, None);
        for number in 0..20_000 {
            keep(&key(&[&format!("/{number}")]), 0, 500, &answer);
            let (bytes, held): (usize, usize) =
                MEMO.with_borrow(|memo| (memo.bytes, memo.slots.iter().flatten().map(Entry::bytes).sum()));
            assert!(bytes <= BYTES_MAX && (number % 1000 != 0 || bytes == held), "{bytes} {held}");
        }
    }

    #[test]
    fn four_shapes_are_learnt_and_no_fifth() {
        let shapes = Shapes::default();
        for bits in [0, 1, 2, 3] {
            assert!(shapes.learn(Parts::new(bits)) && shapes.learn(Parts::new(bits)));
        }
        assert!(!shapes.learn(Parts::new(4)));
        assert_eq!(shapes.known().count(), 4);
    }
}
