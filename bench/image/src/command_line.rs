//! The kernel command line: words of the form `key=value`, separated by blanks.

/// The command line, as the hypervisor passed it.
#[derive(Clone, Copy, Debug)]
pub struct CommandLine(&'static str);

impl CommandLine {
    /// Wraps the text.
    pub fn new(text: &'static str) -> Self {
        Self(text)
    }

    /// The whole text.
    pub fn text(self) -> &'static str {
        self.0
    }

    /// The value of `key`; the last one, if it is given several times.
    pub fn value(self, key: &str) -> Option<&'static str> {
        self.words().filter(|(name, _)| *name == key).map(|(_, value)| value).last()
    }

    /// Every `(key, value)`, in order; a word without `=` has the value "".
    pub fn words(self) -> impl Iterator<Item = (&'static str, &'static str)> {
        self.0.split_ascii_whitespace().map(|word| word.split_once('=').unwrap_or((word, "")))
    }
}
