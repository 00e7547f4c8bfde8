//! A window of Chromium with a page in it.
//!
//! Everything that the page complains of or asks for is collected from before it is loaded. The browser ends with the
//! value; its profile is empty and goes with it.
use headless_chrome::protocol::cdp::types::Event;
use headless_chrome::protocol::cdp::{Browser as Downloads, Emulation, Log, Network, Page, Runtime};
use headless_chrome::{Browser, LaunchOptions, Tab};
use serde_json::Value;
use std::ffi::OsStr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// For one thing that the browser is asked.
const LIMIT: Duration = Duration::from_mins(1);
const ARGUMENTS: [&str; 7] = [
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-gpu",
    "--hide-scrollbars",
];

/// What the reader prefers.
#[derive(Clone, Copy)]
pub(crate) enum Scheme {
    Light,
    Dark,
}

impl Scheme {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Light => "light",
            Self::Dark => "dark",
        }
    }
}

#[derive(Default)]
struct Seen {
    complaints: Vec<String>,
    requests: Vec<String>,
}

/// A window; closed when dropped.
pub(crate) struct Window {
    tab: Arc<Tab>,
    seen: Arc<Mutex<Seen>>,
    downloads: tempfile::TempDir,
    // Behind the tab: dropped after it, and before its profile.
    _browser: Browser,
    _profile: tempfile::TempDir,
}

impl Window {
    /// Opens the page at `path`.
    pub(crate) fn open(path: &Path, width: u32, scheme: Scheme) -> Self {
        let profile = tempfile::tempdir().expect("a folder for the profile");
        let downloads = tempfile::tempdir().expect("a folder for downloads");
        let options = LaunchOptions {
            headless: true,
            // Chromium's own refuses to run as root.
            sandbox: false,
            // Without a path one is looked for.
            path: std::env::var_os("CHROMIUM").map(Into::into),
            user_data_dir: Some(profile.path().to_owned()),
            args: ARGUMENTS.iter().map(OsStr::new).collect(),
            idle_browser_timeout: LIMIT,
            ..LaunchOptions::default()
        };
        let browser = Browser::new(options).expect("Chromium starts: cargo xtask setup");
        let tab = browser.new_tab().expect("a tab");
        tab.set_default_timeout(LIMIT);
        let seen = Arc::new(Mutex::new(Seen::default()));
        let window = Self { tab, seen, downloads, _browser: browser, _profile: profile };
        window.listen();
        window.look(width, scheme);
        let url = format!("file://{}", path.display());
        window.tab.navigate_to(&url).and_then(|tab| tab.wait_until_navigated()).expect("the page loads");
        window
    }

    fn listen(&self) {
        let seen = Arc::clone(&self.seen);
        let note = move |event: &Event| {
            let mut seen = seen.lock().unwrap();
            match event {
                Event::RuntimeExceptionThrown(event) => {
                    seen.complaints.push(format!("exception: {:?}", event.params.exception_details));
                }
                Event::RuntimeConsoleAPICalled(event) => {
                    seen.complaints.push(format!("console: {:?}", event.params.args));
                }
                Event::LogEntryAdded(event) => seen.complaints.push(event.params.entry.text.clone()),
                Event::NetworkRequestWillBeSent(event) => seen.requests.push(event.params.request.url.clone()),
                _ => {}
            }
        };
        self.tab.add_event_listener(Arc::new(note)).expect("a listener");
        self.tab.call_method(Runtime::Enable(None)).expect("the runtime is watched");
        self.tab.call_method(Log::Enable(None)).expect("the log is watched");
        let network: Network::Enable = serde_json::from_str("{}").expect("every field may be left out");
        self.tab.call_method(network).expect("the network is watched");
    }

    fn look(&self, width: u32, scheme: Scheme) {
        self.resize(width, 800);
        let preferred = Emulation::MediaFeature { name: "prefers-color-scheme".into(), value: scheme.word().into() };
        let media = Emulation::SetEmulatedMedia { media: None, features: Some(vec![preferred]) };
        self.tab.call_method(media).expect("the scheme is set");
    }

    fn resize(&self, width: u32, height: u64) {
        let metrics =
            serde_json::json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600});
        let metrics: Emulation::SetDeviceMetricsOverride = serde_json::from_value(metrics).expect("a size");
        self.tab.call_method(metrics).expect("the size is set");
    }

    /// Errors, exceptions and everything that was logged.
    pub(crate) fn complaints(&self) -> Vec<String> {
        self.seen.lock().unwrap().complaints.clone()
    }

    /// Every address that was asked for.
    pub(crate) fn requests(&self) -> Vec<String> {
        let requests = self.seen.lock().unwrap().requests.clone();
        assert!(!requests.is_empty(), "the page itself was not noticed");
        requests
    }

    /// The value of an expression.
    pub(crate) fn ask(&self, expression: &str) -> Value {
        let ask = serde_json::json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let ask: Runtime::Evaluate = serde_json::from_value(ask).expect("an expression");
        let answer = self.tab.call_method(ask).expect("the browser answers");
        assert!(answer.exception_details.is_none(), "{expression}: {:?}", answer.exception_details);
        answer.result.value.unwrap_or_default()
    }

    /// What pressing the button for the element `from` saves, as a file that must be called `name`.
    pub(crate) fn download(&self, from: &str, name: &str) -> String {
        let folder = self.downloads.path();
        let behavior = serde_json::json!({"behavior": "allow", "downloadPath": folder, "eventsEnabled": false});
        let behavior: Downloads::SetDownloadBehavior = serde_json::from_value(behavior).expect("a folder");
        self.tab.call_method(behavior).expect("downloads are allowed");
        // By keyboard, as somebody without a mouse does it.
        self.ask(&format!("document.querySelector('button[data-from=\"{from}\"]').focus()"));
        self.tab.press_key("Enter").expect("the key is pressed");
        let path = folder.join(name);
        let deadline = Instant::now() + LIMIT;
        // The browser renames the file when it is whole.
        while !path.exists() {
            assert!(Instant::now() < deadline, "{from}: {name} does not arrive");
            std::thread::yield_now();
        }
        std::fs::read_to_string(path).expect("the download is text")
    }

    /// A picture of the whole page, in a window as high as that.
    pub(crate) fn picture(&self, path: &Path, width: u32) {
        let height = self.ask("document.documentElement.scrollHeight").as_u64().expect("a height");
        self.resize(width, height);
        let png = Page::CaptureScreenshotFormatOption::Png;
        let shot = self.tab.capture_screenshot(png, None, None, true).expect("a picture");
        std::fs::write(path, shot).expect("the picture is written");
    }
}

/// Width and height of a PNG.
pub(crate) fn size(path: &Path) -> (u32, u32) {
    let text = std::fs::read(path).expect("the picture is there");
    let number = |at: usize| u32::from_be_bytes(text[at..at + 4].try_into().unwrap());
    (number(16), number(20))
}
