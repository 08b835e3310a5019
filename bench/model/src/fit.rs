//! Least squares with factors that are not negative: costs from what was measured.

/// How many units a stage has.
pub const UNITS: usize = 3;

/// One measurement: how many there were of each unit, and what it cost in all.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Row {
    /// How many there were of each unit.
    pub units: [f64; UNITS],
    /// What it cost.
    pub cost: f64,
}

/// Factors for the units, none of them negative, that explain the costs best, by relative errors. A
/// unit that explains nothing more has the factor 0, as has one that can't be told from an
/// earlier one.
///
/// There are so few units that each choice of them is tried. One more is taken only if it explains
/// at least a tenth of what is left, so that noise does not become a cost. The first unit is left
/// out only if the others alone explain twice as much: whatever a stage does, it does something for
/// each transaction, and what is wrongly put on frames becomes many times too much with many hosts.
#[must_use]
pub fn non_negative(rows: &[Row]) -> [f64; UNITS] {
    fit(&measured(rows), UNITS, 0.0).0
}

/// The same for two stages whose last unit is the same thing and costs the same.
///
/// What the one can't tell apart the other may. The factor is searched over a grid, because what is
/// best for the other units changes with it.
#[must_use]
pub fn sharing_last(one: &[Row], other: &[Row]) -> ([f64; UNITS], [f64; UNITS]) {
    let (one, other) = (measured(one), measured(other));
    let both = |factor: f64| {
        let (mut first, left) = fit(&one, LAST, factor);
        let (mut second, more) = fit(&other, LAST, factor);
        (first[LAST], second[LAST]) = (factor, factor);
        (first, second, left + more)
    };
    let most = |rows: &[Row]| {
        let each = rows.iter().filter(|row| row.units[LAST] > 0.0);
        each.map(|row| row.cost / row.units[LAST]).fold(0.0, f64::max)
    };
    let most = most(&one).max(most(&other));
    let mut best = both(0.0);
    let none = best.2;
    for step in 1..=GRID {
        let tried = both(most * f64::from(step) / f64::from(GRID));
        if tried.2 < best.2.min(none * 0.9) {
            best = tried;
        }
    }
    (best.0, best.1)
}

/// The last unit.
const LAST: usize = UNITS - 1;
/// Into how many steps a factor is searched.
const GRID: u32 = 400;

fn measured(rows: &[Row]) -> Vec<Row> {
    rows.iter().copied().filter(|row| row.cost > 0.0).collect()
}

/// Factors for the first `count` units, where the last unit costs `last`, and the sum of the squares
/// of the relative errors that are left.
fn fit(rows: &[Row], count: usize, last: f64) -> ([f64; UNITS], f64) {
    let mut fixed = [0.0; UNITS];
    fixed[LAST] = last;
    let mut best = (fixed, residual(rows, &fixed));
    let mut choices: Vec<u32> = (1..1 << count).collect();
    choices.sort_by_key(|choice| (choice & 1 == 0, choice.count_ones()));
    let mut with_first = f64::INFINITY;
    for choice in choices {
        let chosen: Vec<usize> = (0..count).filter(|unit| choice & (1 << unit) != 0).collect();
        if chosen.len() > rows.len() {
            continue;
        }
        let Some(factors) = solve(rows, &chosen, last) else { continue };
        let left = residual(rows, &factors);
        let bound = if choice & 1 == 0 { with_first * 0.5 } else { f64::INFINITY };
        if left < (best.1 * 0.9).min(bound) {
            best = (factors, left);
        }
        if choice & 1 == 1 {
            with_first = with_first.min(left);
        }
    }
    best
}

/// The sum of the squares of relative errors.
fn residual(rows: &[Row], factors: &[f64; UNITS]) -> f64 {
    let error = |row: &Row| (predicted(row, factors) - row.cost) / row.cost;
    // Below that all choices are as good.
    rows.iter().map(|row| error(row).powi(2)).sum::<f64>().max(1e-12)
}

fn predicted(row: &Row, factors: &[f64; UNITS]) -> f64 {
    row.units.iter().zip(factors).map(|(count, factor)| count * factor).sum()
}

/// Least squares over the chosen units, where the last unit costs `last` if it is not one of them;
/// `None` if they can't be told apart or one comes out negative.
fn solve(rows: &[Row], chosen: &[usize], last: f64) -> Option<[f64; UNITS]> {
    let size = chosen.len();
    // The normal equations, each row divided by its cost; units scaled so that they compare.
    let scale = |unit: usize| rows.iter().map(|row| row.units[unit] / row.cost).fold(0.0, f64::max);
    let scales: Vec<f64> = chosen.iter().map(|unit| scale(*unit)).collect();
    if scales.iter().any(|scale| *scale <= 0.0) {
        return None;
    }
    let value = |row: &Row, at: usize| row.units[chosen[at]] / row.cost / scales[at];
    let left = |row: &Row| 1.0 - last * row.units[LAST] / row.cost;
    let mut matrix = vec![vec![0.0; size + 1]; size];
    for (line, equation) in matrix.iter_mut().enumerate() {
        for (column, cell) in equation.iter_mut().enumerate() {
            let other = |row: &Row| if column < size { value(row, column) } else { left(row) };
            *cell = rows.iter().map(|row| value(row, line) * other(row)).sum();
        }
    }
    let solution = eliminate(matrix)?;
    let mut factors = [0.0; UNITS];
    factors[LAST] = last;
    for (at, unit) in chosen.iter().enumerate() {
        factors[*unit] = solution[at] / scales[at];
    }
    factors.iter().all(|factor| *factor >= 0.0).then_some(factors)
}

/// Gaussian elimination with pivots; `None` if the matrix is (nearly) singular.
fn eliminate(mut matrix: Vec<Vec<f64>>) -> Option<Vec<f64>> {
    let size = matrix.len();
    for column in 0..size {
        let pivot = (column..size).max_by(|one, other| {
            matrix[*one][column].abs().total_cmp(&matrix[*other][column].abs())
        })?;
        matrix.swap(column, pivot);
        if matrix[column][column].abs() < 1e-6 {
            return None;
        }
        let (above, below) = matrix.split_at_mut(column + 1);
        let leading = &above[column];
        for equation in below {
            let factor = equation[column] / leading[column];
            equation.iter_mut().zip(leading).for_each(|(cell, lead)| *cell -= factor * lead);
        }
    }
    let mut solution = vec![0.0; size];
    for line in (0..size).rev() {
        let known: f64 = (line + 1..size).map(|at| matrix[line][at] * solution[at]).sum();
        solution[line] = (matrix[line][size] - known) / matrix[line][line];
    }
    Some(solution)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rows(units: &[[f64; UNITS]], factors: [f64; UNITS]) -> Vec<Row> {
        let row = |units: &[f64; UNITS]| {
            let cost = units.iter().zip(factors).map(|(count, factor)| count * factor).sum();
            Row { units: *units, cost }
        };
        units.iter().map(row).collect()
    }

    #[test]
    fn two_points_tell_two_units_apart() {
        let rows = rows(&[[100.0, 0.0, 40.0], [100.0, 100.0, 40.0]], [20.0, 5.0, 0.0]);
        let found = non_negative(&rows);
        assert!((found[0] - 20.0).abs() < 1e-6 && (found[1] - 5.0).abs() < 1e-6, "{found:?}");
    }

    #[test]
    fn one_point_is_all_transactions() {
        let rows = rows(&[[100.0, 50.0, 7.0]], [20.0, 5.0, 1.0]);
        let [transaction, part, event] = non_negative(&rows);
        assert!((transaction - rows[0].cost / 100.0).abs() < 1e-9);
        assert_eq!((part, event), (0.0, 0.0));
    }

    #[test]
    fn what_grows_with_the_others_is_no_cost_of_its_own() {
        let rows = rows(&[[100.0, 50.0, 0.0], [200.0, 100.0, 0.0]], [20.0, 5.0, 0.0]);
        assert_eq!(non_negative(&rows)[1], 0.0);
    }

    #[test]
    fn what_one_stage_can_not_tell_apart_the_other_may() {
        // The first has as many frames for each transaction at all points.
        let one = rows(&[[1.0, 0.0, 0.5], [1.0, 0.0, 0.5]], [20.0, 0.0, 40.0]);
        let other = rows(&[[1.0, 0.0, 0.2], [1.0, 0.0, 2.0], [1.0, 0.0, 1.0]], [5.0, 0.0, 40.0]);
        assert_eq!(non_negative(&one)[2], 0.0);
        let (first, second) = sharing_last(&one, &other);
        assert!((first[0] - 20.0).abs() < 0.5 && (second[0] - 5.0).abs() < 0.5);
        assert_eq!(first[2], second[2]);
        assert!((first[2] - 40.0).abs() < 0.5, "{first:?} {second:?}");
    }

    #[test]
    fn nothing_measured_costs_nothing() {
        assert_eq!(non_negative(&[]), [0.0; UNITS]);
        assert_eq!(non_negative(&[Row { units: [5.0; UNITS], cost: 0.0 }]), [0.0; UNITS]);
    }

    proptest! {
        #[test]
        fn what_is_linear_is_explained(
            factors in prop::array::uniform3(1.0..50.0_f64),
            units in prop::collection::vec(prop::array::uniform3(1.0..1_000.0_f64), 6..12),
        ) {
            let rows = rows(&units, factors);
            let found = non_negative(&rows);
            prop_assert!(found.iter().all(|factor| *factor >= 0.0));
            for row in &rows {
                // A unit that explains less than the threshold may be left out.
                prop_assert!((predicted(row, &found) / row.cost - 1.0).abs() < 0.5);
            }
        }
    }
}
