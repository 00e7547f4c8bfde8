//! Plots as SVG, by plotters.
//!
//! Colours are keys, not colours: whoever draws names a driver and a style, and the page's style sheet turns the keys
//! into colours and dashes, another set when it is dark. Everything that can be told by its colour can also be told by
//! its marker or its dash. Knows shapes and axes; refuses to know what is plotted.
use crate::page::measured::Who;
use anyhow::{Result, anyhow};
use maud::{Markup, PreEscaped, html};
use plotters::coord::Shift;
use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

const WIDTH: u32 = 480;
const HEIGHT: u32 = 300;
/// Of one row: its words above, its marks below.
const ROW: u32 = 34;
/// Above the first row, and below the last one.
const HEAD: u32 = 6;
const FOOT: u32 = 40;
/// Characters in a row: its label and, at the other end, its value.
const LABEL: usize = 50;

const INK: RGBColor = RGBColor(0xA0, 0, 0);
const GRID: RGBColor = RGBColor(0xA1, 0, 0);
const FAINT: RGBColor = RGBColor(0xA2, 0, 0);

/// Whose it is, and the place among those of the same colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key(pub(crate) Who, pub(crate) usize);

impl Key {
    fn color(self) -> RGBColor {
        RGBColor(0xC0 | self.0 as u8, 0xD0 | (self.1 as u8 & 7), 0xEE)
    }
}

/// A scale with its ticks.
#[derive(Clone, Debug)]
pub(crate) struct Axis {
    pub(crate) name: String,
    pub(crate) from: f64,
    pub(crate) to: f64,
    pub(crate) ticks: Vec<(f64, String)>,
}

impl Ranged for Axis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (from, to): (i32, i32)) -> i32 {
        let share = (value - self.from) / (self.to - self.from);
        from + (share * f64::from(to - from)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        // Between the ticks nothing is drawn.
        if hint.weight().allow_light_points() { Vec::new() } else { self.ticks.iter().map(|(at, _)| *at).collect() }
    }

    fn range(&self) -> std::ops::Range<f64> {
        self.from..self.to
    }
}

impl ValueFormatter<f64> for Axis {
    fn format_ext(&self, value: &f64) -> String {
        let tick = self.ticks.iter().find(|(at, _)| (at - value).abs() < 1e-9);
        tick.map_or_else(String::new, |(_, name)| name.clone())
    }
}

/// A point, and how far its samples reach.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Point {
    pub(crate) x: f64,
    pub(crate) y: f64,
    pub(crate) reach: Option<(f64, f64)>,
}

/// A mark in a row.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Mark {
    Bar { from: f64, to: f64, key: Key },
    Range { from: f64, to: f64, key: Key },
    Dot { at: f64, key: Key },
}

/// A row: what it is, what it says, how it looks.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) label: String,
    pub(crate) value: String,
    pub(crate) marks: Vec<Mark>,
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// What a plot is called, and what it shows, for those who cannot see it.
#[derive(Clone, Debug)]
pub(crate) struct Words {
    /// Different on the whole page.
    pub(crate) id: String,
    pub(crate) title: String,
    pub(crate) description: String,
}

/// Lines with markers.
pub(crate) fn lines(words: &Words, x: &Axis, y: &Axis, series: &[(Key, Vec<Point>)]) -> Result<Markup> {
    svg(words, WIDTH, HEIGHT, |root| {
        root.draw(&Text::new(y.name.clone(), (4, 4), font()))?;
        let mut chart = ChartBuilder::on(root)
            .margin_top(26)
            .margin_right(14)
            .x_label_area_size(42)
            .y_label_area_size(60)
            .build_cartesian_2d(x.clone(), y.clone())?;
        chart
            .configure_mesh()
            .x_labels(x.ticks.len())
            .y_labels(y.ticks.len())
            .bold_line_style(GRID)
            .axis_style(GRID)
            .label_style(font())
            .axis_desc_style(font())
            .x_desc(x.name.clone())
            .draw()?;
        for (key, points) in series {
            let reaches = points.iter().filter_map(|point| Some((point.x, point.reach?)));
            let stroke = ShapeStyle::from(&key.color().mix(0.45)).stroke_width(1);
            chart.draw_series(reaches.map(|(x, (low, high))| PathElement::new([(x, low), (x, high)], stroke)))?;
            let stroke = ShapeStyle::from(&key.color()).stroke_width(2);
            chart.draw_series(LineSeries::new(points.iter().map(|point| (point.x, point.y)), stroke))?;
            for point in points {
                let at = chart.backend_coord(&(point.x, point.y));
                marker(root, at, *key)?;
            }
        }
        Ok(())
    })
}

/// Rows of marks along one scale; `reference` is a line across all of them.
pub(crate) fn rows(words: &Words, x: &Axis, rows: &[Row], reference: Option<f64>) -> Result<Markup> {
    let height = HEAD + ROW * rows.len() as u32 + FOOT;
    svg(words, WIDTH, height, |root| {
        let mut chart = ChartBuilder::on(root)
            .margin_top(HEAD)
            .margin_left(14)
            .margin_right(22)
            .x_label_area_size(FOOT)
            .build_cartesian_2d(x.clone(), 0.0..rows.len() as f64)?;
        chart
            .configure_mesh()
            .x_labels(x.ticks.len())
            .disable_mesh()
            .disable_y_axis()
            .bold_line_style(GRID)
            .axis_style(GRID)
            .label_style(font())
            .axis_desc_style(font())
            .x_desc(x.name.clone())
            .draw()?;
        let pixel = |value: f64| chart.backend_coord(&(value.clamp(x.from, x.to), 0.0)).0;
        for (index, row) in rows.iter().enumerate() {
            let top = (HEAD + ROW * index as u32).cast_signed();
            root.draw(&Text::new(short(&row.label, &row.value), (14, top + 2), font()))?;
            let right = font().pos(Pos::new(HPos::Right, VPos::Top));
            root.draw(&Text::new(row.value.clone(), (WIDTH.cast_signed() - 14, top + 2), right))?;
            // Under the words nothing is drawn.
            let upright = |at: f64, stroke: ShapeStyle| {
                root.draw(&PathElement::new([(pixel(at), top + 17), (pixel(at), top + 31)], stroke))
            };
            for (at, _) in &x.ticks {
                upright(*at, GRID.stroke_width(1))?;
            }
            if let Some(reference) = reference {
                upright(reference, FAINT.stroke_width(2))?;
            }
            for mark in &row.marks {
                draw_mark(root, *mark, top + 24, &pixel)?;
            }
        }
        Ok(())
    })
}

/// A legend's picture of a key: a piece of its line with its marker, or a piece of its bar.
pub(crate) fn swatch(key: Key, bar: bool) -> Result<Markup> {
    let drawn = picture(30, 12, |root| {
        if bar {
            root.draw(&Rectangle::new([(4, 1), (26, 11)], key.color().filled()))?;
            return Ok(());
        }
        root.draw(&PathElement::new([(0, 6), (30, 6)], key.color().stroke_width(2)))?;
        marker(root, (15, 6), key)
    })?;
    Ok(html! { svg.swatch viewBox="0 0 30 12" aria-hidden="true" { (PreEscaped(drawn)) } })
}

fn draw_mark(root: &Area<'_>, mark: Mark, y: i32, pixel: &dyn Fn(f64) -> i32) -> Result<()> {
    match mark {
        Mark::Bar { from, to, key } => {
            root.draw(&Rectangle::new([(pixel(from), y - 6), (pixel(to), y + 6)], key.color().filled()))?;
        }
        Mark::Range { from, to, key } => {
            let stroke = ShapeStyle::from(&key.color().mix(0.45)).stroke_width(3);
            root.draw(&PathElement::new([(pixel(from), y), (pixel(to), y)], stroke))?;
        }
        Mark::Dot { at, key } => marker(root, (pixel(at), y), key)?,
    }
    Ok(())
}

/// A shape for each driver, so that colour is not all that tells them apart.
fn marker(root: &Area<'_>, (x, y): (i32, i32), key: Key) -> Result<()> {
    let style = key.color().filled();
    let corners: &[(i32, i32)] = match key.0 {
        Who::Ours => {
            root.draw(&Circle::new((x, y), 4, style))?;
            return Ok(());
        }
        Who::Blockd => {
            root.draw(&Circle::new((x, y), 4, ShapeStyle::from(&key.color()).stroke_width(2)))?;
            return Ok(());
        }
        Who::Raw => &[(-5, -2), (5, -2), (5, 2), (-5, 2)],
        Who::VirtioDrivers => &[(0, -5), (5, 4), (-5, 4)],
        Who::VirtioDriver => &[(-4, -4), (4, -4), (4, 4), (-4, 4)],
        Who::Blkio => &[(0, 5), (5, -4), (-5, -4)],
        Who::Linux => &[(0, -6), (6, 0), (0, 6), (-6, 0)],
        Who::Other => &[(-2, -5), (2, -5), (2, 5), (-2, 5)],
    };
    root.draw(&Polygon::new(corners.iter().map(|(dx, dy)| (x + dx, y + dy)).collect::<Vec<_>>(), style))?;
    Ok(())
}

fn font() -> TextStyle<'static> {
    ("sans-serif", 15).into_font().color(&INK)
}

fn short(label: &str, value: &str) -> String {
    let room = LABEL.saturating_sub(value.chars().count());
    if label.chars().count() <= room {
        return label.to_owned();
    }
    label.chars().take(room.saturating_sub(1)).chain(['…']).collect()
}

/// The whole element, with words for those who cannot see it.
fn svg(words: &Words, width: u32, height: u32, draw: impl FnOnce(&Area<'_>) -> Result<()>) -> Result<Markup> {
    let drawn = picture(width, height, draw)?;
    let (title, description) = (format!("{}-title", words.id), format!("{}-desc", words.id));
    Ok(html! {
        svg.plot viewBox=(format!("0 0 {width} {height}")) role="img" aria-labelledby=(title) aria-describedby=(description) {
            title id=(title) { (words.title) }
            desc id=(description) { (words.description) }
            (PreEscaped(drawn))
        }
    })
}

/// What plotters drew, without the element around it.
fn picture(width: u32, height: u32, draw: impl FnOnce(&Area<'_>) -> Result<()>) -> Result<String> {
    let mut text = String::new();
    {
        let root = SVGBackend::with_string(&mut text, (width, height)).into_drawing_area();
        draw(&root)?;
        root.present().map_err(|error| anyhow!("drawing a plot: {error}"))?;
    }
    let inside = text.split_once('>').and_then(|(_, rest)| rest.rsplit_once("</svg>"));
    inside.map(|(inside, _)| inside.to_owned()).ok_or_else(|| anyhow!("plotters drew no picture"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn axis() -> Axis {
        Axis { name: "x".into(), from: 0.0, to: 1.0, ticks: vec![(0.0, "none".into()), (1.0, "all".into())] }
    }

    fn words() -> Words {
        Words { id: "p".into(), title: "a <b>".into(), description: "c & d".into() }
    }

    #[test]
    fn labels_are_escaped_and_long_ones_are_cut() {
        let row = Row { label: format!("<script>{}", "x".repeat(90)), value: "<1".into(), marks: Vec::new() };
        let drawn = rows(&words(), &axis(), &[row], None).unwrap().into_string();
        assert!(drawn.contains("&lt;script&gt;x") && drawn.contains("&lt;1") && drawn.contains('…'), "{drawn}");
        assert!(drawn.contains("a &lt;b&gt;") && drawn.contains("c &amp; d"));
        assert!(!drawn.contains("<script>") && !drawn.contains(&"x".repeat(60)));
    }

    #[test]
    fn keys_not_colours_are_drawn() {
        let points = vec![Point { x: 0.0, y: 0.5, reach: Some((0.4, 0.6)) }, Point { x: 1.0, y: 0.7, reach: None }];
        let drawn = lines(&words(), &axis(), &axis(), &[(Key(Who::Linux, 1), points)]).unwrap().into_string();
        assert!(drawn.contains("#C6D1EE"), "{drawn}");
        let mut rest = drawn.as_str();
        while let Some((_, after)) = rest.split_once("=\"#") {
            assert!(["C6D1EE", "A00000", "A10000", "A20000", "000000"].contains(&&after[..6]), "{}", &after[..6]);
            rest = after;
        }
        assert!(drawn.contains("none") && drawn.contains("all"), "ticks are named");
    }
}
