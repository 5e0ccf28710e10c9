//! The sentences that an agent makes for operators: English in every report and in the log, and in the reader's language on the page,
//! which knows them by their templates. A field of a report that the page shows is a [`Sentence`], and only [`sentence!`] makes one,
//! so that `tests/page_chinese.rs` finds every template in the sources. Knows no language.

use std::fmt;
use std::ops::Deref;

use serde::{Deserialize, Serialize};

/// A sentence, or a part of one. What it is made of may be sentences, too.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(inline))]
pub struct Sentence(String);

impl Sentence {
    /// For [`sentence!`] alone.
    pub(crate) fn marked(text: String) -> Self {
        Self(text)
    }
}

/// Makes a [`Sentence`] of what `format!` takes; the template has a Chinese one in `ops/page.html`.
macro_rules! sentence {
    ($template:literal $($values:tt)*) => {
        $crate::sentence::Sentence::marked(format!($template $($values)*))
    };
}
pub(crate) use sentence;

impl Deref for Sentence {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Sentence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl PartialEq<&str> for Sentence {
    fn eq(&self, other: &&str) -> bool {
        self.0 == *other
    }
}

/// Tests take any text for one.
#[cfg(test)]
impl From<&str> for Sentence {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}
