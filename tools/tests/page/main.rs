//! The page in a real browser: Chromium, headless, over its own protocol.
//!
//! What a reader relies on is asked of the browser, not of the text: no error, no request, every number in a table,
//! downloads that give the document back, nothing sideways on a phone, colours that can be read, light and dark. The
//! screenshots stay in the target folder (`page/`) for somebody to look at.
mod fixture;
#[path = "../tool/mod.rs"]
mod tool;
mod window;

use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use window::{Scheme, Window};

const PHONE: u32 = 390;
/// The narrowest phone that is cared for.
const NARROW: u32 = 360;
const DESK: u32 = 1280;

/// Stored results of this repository, and a comparison with everything that one can have.
fn documents() -> Vec<(String, Value)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../bench/results");
    let stored = ["compare", "bench"].into_iter().map(|name| {
        let text = std::fs::read(folder.join(format!("{name}.json"))).expect("the stored results are there");
        (name.to_owned(), serde_json::from_slice(&text).expect("they are JSON"))
    });
    std::iter::once(("comparison".to_owned(), fixture::comparison())).chain(stored).collect()
}

/// The page that the tool makes of `documents`, in a folder of its own.
struct Page {
    folder: tempfile::TempDir,
}

impl Page {
    fn of(documents: &[(String, Value)]) -> Self {
        let folder = tempfile::tempdir().expect("a folder for the page");
        let mut arguments = vec!["report".to_owned()];
        for (name, document) in documents {
            let path = folder.path().join(format!("{name}.json"));
            std::fs::write(&path, serde_json::to_string_pretty(document).unwrap() + "\n").unwrap();
            arguments.push(path.to_string_lossy().into_owned());
        }
        arguments.push(format!("--output={}", folder.path().join("page.html").display()));
        let ran = tool::run(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
        assert!(ran.ok, "{}", ran.error);
        Self { folder }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("page.html")
    }

    fn open(&self, width: u32, scheme: Scheme) -> Window {
        Window::open(&self.path(), width, scheme)
    }
}

fn jobs(document: &Value) -> &Vec<Value> {
    document["jobs"].as_array().unwrap()
}

/// Samples with their job's name.
fn samples(document: &Value) -> Vec<(&str, &Value)> {
    let of = |job| {
        let job: &Value = job;
        let all = job["drv"]["samples"].as_array().map_or(&[][..], Vec::as_slice);
        all.iter().map(|sample| (job["jobname"].as_str().unwrap(), sample))
    };
    jobs(document).iter().flat_map(of).collect()
}

#[test]
fn a_page_loads_without_errors_and_asks_for_nothing() {
    let page = Page::of(&documents());
    let window = page.open(DESK, Scheme::Light);
    assert_eq!(window.complaints(), Vec::<String>::new());
    let file = format!("file://{}", page.path().display());
    let beside: Vec<_> =
        window.requests().into_iter().filter(|url| *url != file && !url.starts_with("data:")).collect();
    assert_eq!(beside, Vec::<String>::new(), "requests besides the page itself");
    assert_eq!(window.ask("document.scripts.length"), documents().len() + 1, "the documents and the page's own script");
    // A script of a file's text would have asked.
    assert_eq!(window.ask("document.querySelector('#d0-jobs tr th').textContent"), fixture::HOSTILE);
}

#[test]
fn every_job_and_every_sample_stands_in_a_table() {
    let documents = documents();
    let page = Page::of(&documents);
    let window = page.open(DESK, Scheme::Light);
    for (index, (name, document)) in documents.iter().enumerate() {
        let rows = |part: &str| window.ask(&format!("document.querySelectorAll('#d{index}-{part} tr').length"));
        assert_eq!(rows("jobs"), jobs(document).len(), "{name}");
        let samples = samples(document);
        assert_eq!(rows("samples"), samples.len(), "{name}");
        let cells = window.ask(&format!(
            "[...document.querySelectorAll('#d{index}-samples tr')].map(row => [...row.cells].map(cell => cell.textContent))"
        ));
        let headings = window.ask(&format!(
            "[...document.querySelector('#d{index}-samples').closest('table').tHead.rows[0].cells].map(cell => cell.textContent)"
        ));
        let column = |name: &str| headings.as_array().unwrap().iter().position(|heading| heading == name).unwrap();
        let (iops, p99) = (column("iops"), column("p99_ns"));
        for ((job, sample), row) in samples.iter().zip(cells.as_array().unwrap()) {
            assert_eq!(row[0], *job);
            for (key, at) in [("iops", iops), ("p99_ns", p99)] {
                assert_eq!(row[at], sample[key].to_string(), "{name}, {job}, {key}");
            }
        }
        let options = format!("document.querySelector('#d{index}-jobs').textContent");
        let all = window.ask(&options);
        for percentile in ["50.000000", "99.990000"] {
            // Counted jobs have none.
            let mut of = jobs(document).iter().map(|job| &job["read"]["clat_ns"]["percentile"][percentile]);
            let of = of.find(|of| of.as_f64() > Some(0.0)).expect("a job was timed");
            assert!(all.as_str().unwrap().contains(&of.to_string()), "{name}, {percentile}");
        }
    }
}

#[test]
fn downloads_give_the_document_and_its_rows_back() {
    let documents = documents();
    let page = Page::of(&documents);
    let window = page.open(DESK, Scheme::Light);
    for (index, (name, document)) in documents.iter().enumerate() {
        let json = window.download(&format!("d{index}-json"), &format!("{name}.json"));
        assert_eq!(serde_json::from_str::<Value>(&json).unwrap(), *document, "{name}");
        let text = window.download(&format!("d{index}-samples-csv"), &format!("{name}-samples.csv"));
        let mut reader = csv::Reader::from_reader(text.as_bytes());
        let iops = reader.headers().unwrap().iter().position(|heading| heading == "iops").unwrap();
        let rows: Vec<_> = reader.records().map(Result::unwrap).collect();
        let samples = samples(document);
        assert_eq!(rows.len(), samples.len(), "{name}");
        for (row, (job, sample)) in rows.iter().zip(samples) {
            assert_eq!((&row[0], &row[iops]), (job, sample["iops"].to_string().as_str()), "{name}");
        }
        let text = window.download(&format!("d{index}-jobs-csv"), &format!("{name}-jobs.csv"));
        assert_eq!(csv::Reader::from_reader(text.as_bytes()).records().count(), jobs(document).len(), "{name}");
    }
    assert_eq!(window.complaints(), Vec::<String>::new());
}

#[test]
fn nothing_scrolls_sideways_but_the_tables() {
    let page = Page::of(&documents());
    for width in [NARROW, PHONE, DESK] {
        let window = page.open(width, Scheme::Light);
        window.ask("document.querySelectorAll('details').forEach(one => one.open = true)");
        assert_eq!(window.ask("innerWidth"), width);
        assert_eq!(window.ask("document.documentElement.scrollWidth"), width);
        let wide = "[...document.querySelectorAll('svg.plot, p, h1, h2, h3, ul, figure')]
            .filter(one => one.getBoundingClientRect().right > innerWidth + 0.5).map(one => one.outerHTML.slice(0, 80))";
        assert_eq!(window.ask(wide), json!([]), "at {width}");
        assert_eq!(window.ask("[...document.querySelectorAll('table')].every(one => one.closest('.scroll'))"), true);
        // Text in plots is scaled with them, and must stay large enough to read.
        let smallest = "Math.min(...[...document.querySelectorAll('svg.plot')].map(one =>
            parseFloat(getComputedStyle(one.querySelector('text')).fontSize) * one.getScreenCTM().a))";
        assert!(window.ask(smallest).as_f64().unwrap() >= 9.5, "at {width}: {}", window.ask(smallest));
    }
}

#[test]
fn what_was_measured_is_in_view_on_a_phone_in_every_table_that_is_read() {
    let page = Page::of(&documents());
    for width in [NARROW, PHONE] {
        let window = page.open(width, Scheme::Light);
        window.ask("document.querySelectorAll('details').forEach(one => one.open = true)");
        let cells = "[...document.querySelectorAll('table:not(.raw) tbody :is(th, td)')]";
        assert!(window.ask(&format!("{cells}.length")).as_u64().unwrap() > 200);
        let cut = format!(
            "{cells}.filter(cell => {{
                const range = document.createRange();
                range.selectNodeContents(cell);
                const box = range.getBoundingClientRect();
                return cell.textContent.trim() && (box.width === 0 || box.left < 0 || box.right > innerWidth);
            }}).map(cell => cell.textContent)"
        );
        assert_eq!(window.ask(&cut), json!([]), "at {width}");
        let headed = format!(
            "{cells}.filter(cell => cell.tagName === 'TD').every(cell =>
                cell.dataset.label === cell.closest('table').tHead.rows[0].cells[cell.cellIndex].textContent)"
        );
        assert_eq!(window.ask(&headed), true, "each figure has its own column's heading");
        // The first bound's figure is beside its heading, on one line.
        let first = window.ask("getComputedStyle(document.querySelector('.checks td'), '::before').content");
        assert_eq!(first, "\"Measured\"");
    }
}

#[test]
fn words_in_plots_lie_inside_and_do_not_cover_one_another() {
    let page = Page::of(&documents());
    for width in [NARROW, PHONE, DESK] {
        let window = page.open(width, Scheme::Light);
        let found = window.ask(
            "[...document.querySelectorAll('svg.plot')].flatMap(plot => {
                const frame = plot.getBoundingClientRect();
                const all = [...plot.querySelectorAll('text')].map(text => [text.textContent.trim(), text.getBoundingClientRect()]);
                const out = all.filter(([, box]) => box.left < frame.left - 1 || box.right > frame.right + 1
                    || box.top < frame.top - 1 || box.bottom > frame.bottom + 1).map(([text]) => `outside: ${text}`);
                const over = all.flatMap(([a, one], at) => all.slice(at + 1)
                    .filter(([, two]) => one.left < two.right - 1 && two.left < one.right - 1 && one.top < two.bottom - 4 && two.top < one.bottom - 4)
                    .map(([b]) => `${a} over ${b}`));
                return [...out, ...over].map(what => plot.querySelector('title').textContent + ': ' + what);
            })",
        );
        assert_eq!(found, json!([]), "at {width}");
    }
}

#[test]
fn headings_tables_and_plots_say_what_they_are() {
    let window = Page::of(&documents()).open(DESK, Scheme::Light);
    let levels = window.ask("[...document.querySelectorAll('h1, h2, h3, h4')].map(one => +one.tagName[1])");
    let levels: Vec<u64> = levels.as_array().unwrap().iter().filter_map(Value::as_u64).collect();
    assert_eq!(levels[..2], [1, 2]);
    assert!(levels.windows(2).all(|pair| pair[1] <= pair[0] + 1 && pair[1] > 1), "{levels:?}");
    for (what, wanted) in [
        ("[...document.querySelectorAll('table')].every(one => one.caption.textContent.trim())", true),
        ("[...document.querySelectorAll('th')].every(one => ['col', 'row'].includes(one.scope))", true),
        ("[...document.querySelectorAll('.scroll')].every(one => one.tabIndex === 0 && one.ariaLabel)", true),
        ("[...document.querySelectorAll('svg.plot')].length > 20", true),
        (
            "[...document.querySelectorAll('svg.plot')].every(one => one.querySelector('title').textContent && one.querySelector('desc').textContent)",
            true,
        ),
        (
            "new Set([...document.querySelectorAll('[id]')].map(one => one.id)).size === document.querySelectorAll('[id]').length",
            true,
        ),
        (
            "[...document.querySelectorAll('a[href^=\"#\"]')].every(one => document.getElementById(one.hash.slice(1)))",
            true,
        ),
    ] {
        assert_eq!(window.ask(what), wanted, "{what}");
    }
}

/// What each kind of element is painted with, and on what.
const PAINTED: &str = "(() => {
    const paper = getComputedStyle(document.documentElement).backgroundColor;
    const pick = (selector, property) => [...new Set([...document.querySelectorAll(selector)]
        .map(one => getComputedStyle(one)[property]).filter(color => color !== 'none'))];
    return {
        paper,
        text: pick('p, li, a, h1, h2, h3, td, th, caption, summary, .verdict, .warning, figcaption', 'color'),
        plot: pick('svg text', 'fill'),
        lines: pick('svg polyline[stroke*=\"EE\"]', 'stroke'),
    };
})()";

#[test]
fn colours_can_be_read_in_the_light_and_in_the_dark() {
    let page = Page::of(&documents());
    let [light, dark] = [Scheme::Light, Scheme::Dark].map(|scheme| page.open(DESK, scheme).ask(PAINTED));
    for painted in [&light, &dark] {
        let paper = luminance(painted["paper"].as_str().unwrap());
        // As WCAG has it: 4.5 for text, 3 for what is drawn.
        for (kind, least) in [("text", 4.5), ("plot", 4.5), ("lines", 3.0)] {
            let all = painted[kind].as_array().unwrap();
            assert!(!all.is_empty());
            for color in all {
                let contrast = contrast(paper, luminance(color.as_str().unwrap()));
                assert!(contrast >= least, "{kind}: {color} on {}: {contrast:.2}", painted["paper"]);
            }
        }
    }
    let brightness = [&light, &dark].map(|painted| luminance(painted["paper"].as_str().unwrap()));
    assert!(brightness[0] > 0.8 && brightness[1] < 0.1, "{brightness:?}");
    for kind in ["text", "plot", "lines"] {
        let shared =
            light[kind].as_array().unwrap().iter().find(|color| dark[kind].as_array().unwrap().contains(color));
        assert_eq!(shared, None, "{kind} keeps a colour");
    }
}

fn contrast(a: f64, b: f64) -> f64 {
    (a.max(b) + 0.05) / (a.min(b) + 0.05)
}

/// Relative luminance of `rgb(r, g, b)`.
fn luminance(color: &str) -> f64 {
    let channels = color.trim_start_matches("rgb(").trim_end_matches(')').split(',');
    let linear = |value: f64| if value <= 0.040_45 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) };
    let all: Vec<f64> = channels.map(|value| linear(value.trim().parse::<f64>().expect(color) / 255.0)).collect();
    let [red, green, blue] = all[..] else { panic!("{color}") };
    0.2126 * red + 0.7152 * green + 0.0722 * blue
}

#[test]
fn screenshots_are_taken() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../page");
    std::fs::create_dir_all(&folder).unwrap();
    for (name, document) in documents() {
        let page = Page::of(&[(name.clone(), document)]);
        for (width, scheme) in
            [(PHONE, Scheme::Light), (DESK, Scheme::Light), (PHONE, Scheme::Dark), (DESK, Scheme::Dark)]
        {
            let window = page.open(width, scheme);
            let path = folder.join(format!("{name}-{width}-{}.png", scheme.word()));
            window.picture(&path, width);
            let (wide, high) = window::size(&path);
            assert!(wide == width && high > 2000, "{}: {wide} x {high}", path.display());
        }
    }
}
