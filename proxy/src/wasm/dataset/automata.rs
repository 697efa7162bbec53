//! Regular expressions as deterministic automata: for each byte of a text one look into a table, whatever the expressions
//! and the text are. Libraries that build such tables while they search take far longer for some texts, and visitors
//! choose these. Expressions whose table would be large are told apart here, while a configuration is applied.

use regex_automata::dfa::{Automaton, StartKind, dense};
use regex_automata::nfa::thompson;
use regex_automata::util::primitives::StateID;
use regex_automata::util::syntax;
use regex_automata::{Anchored, Input, MatchKind};

/// Of one expression, before it becomes a table.
pub(super) const COMPILED_BYTES_MAX: usize = 64 << 10;
/// Of those that share a table, before they become it.
const SHARED_BYTES_MAX: usize = 1 << 20;
const TABLE_BYTES_MAX: usize = 2 << 20;
/// Below it, twice as many expressions may well find place in the next table.
const SMALL_TABLE_BYTES: usize = TABLE_BYTES_MAX / 16;
/// What building one may need meanwhile: it bounds the time that is lost with a table that comes to nothing.
const BUILDING_BYTES_MAX: usize = 256 << 10;

/// Whether an expression may be one of those of a set; or why not.
pub(super) fn check(pattern: &str) -> Result<(), String> {
    let shown = || shown(pattern);
    let expression = syntax::parse_with(pattern, &dialect());
    let expression = expression
        .map_err(|error| format!("`{}`: {}", shown(), error.to_string().lines().last().unwrap_or_default()))?;
    if !expression.properties().look_set_prefix().contains_anchor_haystack() {
        let says = "an alternative does not begin with ^: write ^(?:…|…)";
        return Err(format!("`{}`: {says}", shown()));
    }
    match together(COMPILED_BYTES_MAX).build_from_hir(&expression) {
        Ok(_) => Ok(()),
        Err(error) if error.size_limit().is_some() => {
            Err(format!("`{}` takes more than {COMPILED_BYTES_MAX} bytes when it is compiled", shown()))
        }
        Err(error) => Err(format!("`{}`: {error}", shown())),
    }
}

/// Of one host: together with the length of a path it bounds the time of a look-up.
const TABLES_MAX: usize = 64;

/// What all tables of a dataset may take.
pub(super) struct Budget {
    bytes: usize,
    /// Tables that came to nothing, since they were too large.
    failures: usize,
}

impl Budget {
    pub(super) fn of_a_dataset() -> Self {
        Self { bytes: 32 << 20, failures: 128 }
    }
}

/// The tables of one host's expressions, in their order.
#[derive(Default)]
pub(super) struct Tables {
    /// Each with the place of its first expression.
    tables: Vec<(usize, dense::DFA<Vec<u32>>)>,
}

impl Tables {
    /// As many expressions in each as find place, so that few are walked through. `patterns` have passed `check`.
    pub(super) fn build(patterns: &[String], budget: &mut Budget) -> Result<Self, String> {
        let mut tables = Vec::new();
        let (mut first, mut count) = (0, patterns.len());
        while first < patterns.len() {
            count = count.min(patterns.len() - first);
            let Some(table) = table(&patterns[first..first + count])? else {
                if count == 1 {
                    return Err(too_large(&patterns[first]));
                }
                count = count.div_ceil(2);
                budget.failures = budget.failures.checked_sub(1).ok_or_else(too_many)?;
                continue;
            };
            if tables.len() == TABLES_MAX {
                return Err(too_many());
            }
            let bytes = table.memory_usage();
            budget.bytes = budget.bytes.checked_sub(bytes).ok_or_else(too_many)?;
            tables.push((first, table));
            first += count;
            count *= if bytes < SMALL_TABLE_BYTES { 2 } else { 1 };
        }
        Ok(Self { tables })
    }

    pub(super) fn bytes(&self) -> usize {
        self.tables.iter().map(|(_, table)| table.memory_usage()).sum()
    }

    /// The first of the expressions that matches.
    pub(super) fn first(&self, text: &[u8]) -> Option<usize> {
        self.tables.iter().find_map(|(first, table)| Some(first + lowest(table, text)?))
    }
}

/// `None`: too large.
fn table(patterns: &[String]) -> Result<Option<dense::DFA<Vec<u32>>>, String> {
    let expressions = syntax::parse_many_with(patterns, &dialect()).map_err(|error| error.to_string())?;
    let states = match together(SHARED_BYTES_MAX).build_many_from_hir(&expressions) {
        Ok(states) => states,
        Err(error) if error.size_limit().is_some() => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    let settings = dense::Config::new()
        .match_kind(MatchKind::All)
        .start_kind(StartKind::Anchored)
        .accelerate(false)
        .dfa_size_limit(Some(TABLE_BYTES_MAX))
        .determinize_size_limit(Some(BUILDING_BYTES_MAX));
    match dense::Builder::new().configure(settings).build_from_nfa(&states) {
        Ok(table) => Ok(Some(table)),
        Err(error) if error.is_size_limit_exceeded() => Ok(None),
        Err(error) => Err(error.to_string()),
    }
}

fn lowest(table: &dense::DFA<Vec<u32>>, text: &[u8]) -> Option<usize> {
    let matching = |state: StateID| {
        let count = if table.is_match_state(state) { table.match_len(state) } else { 0 };
        (0..count).map(|index| table.match_pattern(state, index).as_usize()).min()
    };
    let mut found: Option<usize> = None;
    let mut state = table.start_state_forward(&Input::new(text).anchored(Anchored::Yes)).ok()?;
    for byte in text {
        state = table.next_state(state, *byte);
        if table.is_special_state(state) {
            if table.is_dead_state(state) {
                return found;
            }
            found = least(found, matching(state));
        }
    }
    least(found, matching(table.next_eoi_state(state)))
}

fn least(one: Option<usize>, other: Option<usize>) -> Option<usize> {
    one.into_iter().chain(other).min()
}

/// Paths are bytes: classes are ASCII.
fn dialect() -> syntax::Config {
    syntax::Config::new().unicode(false).utf8(false)
}

fn together(bytes_max: usize) -> thompson::Compiler {
    let mut compiler = thompson::Compiler::new();
    compiler.configure(thompson::Config::new().utf8(false).nfa_size_limit(Some(bytes_max)));
    compiler
}

fn too_large(pattern: &str) -> String {
    format!(
        "`{}` needs more than {TABLE_BYTES_MAX} bytes as a table: what is counted after something of any length, as in `.*a.{{20}}`, \
         doubles it with each; write how the path begins, or count less",
        shown(pattern)
    )
}

fn too_many() -> String {
    "the regular expressions do not fit into tables together: with `.*` in their middle each doubles what the others need; \
     write how the paths begin, or fewer of them"
        .to_owned()
}

pub(super) fn shown(pattern: &str) -> String {
    pattern.chars().take(80).flat_map(char::escape_debug).collect()
}
