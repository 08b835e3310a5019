//! The Universal Scalability Law, fitted to measured throughput.
//!
//! X(N) = λN / (1 + σ(N−1) + κN(N−1)): λ is what one host does alone, σ (contention) what can't be
//! done in parallel, κ (crosstalk) what each host costs each other one. With σ = κ = 0 it is a
//! straight line; with κ > 0 there is a number of hosts beyond which more make it slower. (N. J.
//! Gunther, *Guerrilla Capacity Planning*, Springer 2007, chapter 4; *A General Theory of
//! Computational Scalability Based on Rational Functions*, 2008.)
//!
//! The fit is by least squares of throughput, with σ and κ not negative. The least squares lie
//! either where both are free, or where one or both are zero; each of these four cases is solved
//! by the method of Levenberg and Marquardt, and the best that keeps to the bounds is taken. Each
//! starts from the solution of N/X, which is linear in 1/λ, σ/λ and κ/λ.

/// Fewest different numbers of hosts: the law has three parameters.
pub const POINTS_MIN: usize = 3;
/// Steps after which a solution is good enough, whether or not it still changes.
const STEPS_MAX: usize = 500;
/// A step that gains less than this share ends the search.
const GAIN_MIN: f64 = 1e-14;

/// A measured throughput.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Measured {
    /// Hosts: 1 at least.
    pub hosts: f64,
    /// Transactions a second, more than 0.
    pub tps: f64,
}

/// The law that fits best.
#[derive(Debug, Clone, PartialEq)]
pub struct Fit {
    /// λ: transactions a second of one host.
    pub lambda: f64,
    /// σ: contention.
    pub sigma: f64,
    /// κ: crosstalk.
    pub kappa: f64,
    /// How much of the variation of throughput the law explains: 1 is all. As many points as
    /// parameters can always be explained, and show nothing.
    pub r_squared: f64,
    /// What it says at each point: transactions a second.
    pub fitted: Vec<f64>,
    /// Measured less fitted at each point, transactions a second.
    pub residuals: Vec<f64>,
}

/// Why there is no fit.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what the variant and its fields mean")]
pub enum NoFit {
    #[error("the law has 3 parameters, and there are only {found} different numbers of hosts")]
    TooFew { found: usize },
    #[error("{tps} transactions a second on {hosts} hosts can't be fitted")]
    BadPoint { hosts: f64, tps: f64 },
    #[error("no law was found that fits")]
    Unsolved,
}

impl Fit {
    /// Transactions a second that the law says of so many hosts.
    #[must_use]
    pub fn at(&self, hosts: f64) -> f64 {
        Law { lambda: self.lambda, sigma: self.sigma, kappa: self.kappa }.at(hosts)
    }

    /// The number of hosts beyond which throughput falls; `None` if it never does.
    #[must_use]
    pub fn peak(&self) -> Option<f64> {
        (self.kappa > 0.0).then(|| ((1.0 - self.sigma).max(0.0) / self.kappa).sqrt().max(1.0))
    }
}

/// Fits the law to measured points.
///
/// # Errors
/// [`NoFit::TooFew`] below [`POINTS_MIN`] different numbers of hosts; [`NoFit::BadPoint`] for what
/// is no throughput; [`NoFit::Unsolved`] if the numbers are too extreme to calculate with.
pub fn fit(points: &[Measured]) -> Result<Fit, NoFit> {
    for &Measured { hosts, tps } in points {
        if !(hosts.is_finite() && hosts >= 1.0 && tps.is_finite() && tps > 0.0) {
            return Err(NoFit::BadPoint { hosts, tps });
        }
    }
    let mut hosts: Vec<f64> = points.iter().map(|point| point.hosts).collect();
    hosts.sort_by(f64::total_cmp);
    hosts.dedup();
    if hosts.len() < POINTS_MIN {
        return Err(NoFit::TooFew { found: hosts.len() });
    }
    let cases = [[true, true], [true, false], [false, true], [false, false]];
    let solved = cases.iter().filter_map(|free| solve(points, *free));
    let best = solved.min_by(|a, b| a.squares(points).total_cmp(&b.squares(points)));
    Ok(best.ok_or(NoFit::Unsolved)?.described(points))
}

/// The parameters.
#[derive(Debug, Clone, Copy)]
struct Law {
    lambda: f64,
    sigma: f64,
    kappa: f64,
}

impl Law {
    fn divisor(&self, hosts: f64) -> f64 {
        1.0 + self.sigma * (hosts - 1.0) + self.kappa * hosts * (hosts - 1.0)
    }

    fn at(&self, hosts: f64) -> f64 {
        self.lambda * hosts / self.divisor(hosts)
    }

    /// By how much throughput changes with each parameter.
    fn slopes(&self, hosts: f64) -> [f64; 3] {
        let divisor = self.divisor(hosts);
        let by_sigma = -self.lambda * hosts * (hosts - 1.0) / (divisor * divisor);
        [hosts / divisor, by_sigma, by_sigma * hosts]
    }

    fn squares(&self, points: &[Measured]) -> f64 {
        points.iter().map(|point| (point.tps - self.at(point.hosts)).powi(2)).sum()
    }

    /// Whether it is one, and keeps to the bounds.
    fn is_law(&self) -> bool {
        let parameters = [self.lambda, self.sigma, self.kappa];
        let finite = parameters.iter().all(|parameter| parameter.is_finite());
        finite && self.lambda > 0.0 && self.sigma >= 0.0 && self.kappa >= 0.0
    }

    /// Whether throughput is positive and finite at all points, whatever the signs.
    fn is_usable(&self, points: &[Measured]) -> bool {
        self.squares(points).is_finite()
            && self.lambda > 0.0
            && points.iter().all(|point| self.divisor(point.hosts) > 0.0)
    }

    fn described(&self, points: &[Measured]) -> Fit {
        let fitted: Vec<f64> = points.iter().map(|point| self.at(point.hosts)).collect();
        let pairs = points.iter().zip(&fitted);
        let residuals = pairs.map(|(point, fitted)| point.tps - fitted).collect();
        let mean = points.iter().map(|point| point.tps).sum::<f64>() / points.len() as f64;
        let varies: f64 = points.iter().map(|point| (point.tps - mean).powi(2)).sum();
        let squares = self.squares(points);
        // Equal throughput everywhere leaves nothing to explain.
        let r_squared = match varies > 0.0 {
            true => 1.0 - squares / varies,
            false => 1.0,
        };
        let Self { lambda, sigma, kappa } = *self;
        Fit { lambda, sigma, kappa, r_squared, fitted, residuals }
    }
}

/// The least squares with σ and κ free or zero; `None` if that is out of bounds.
fn solve(points: &[Measured], free: [bool; 2]) -> Option<Law> {
    let free = [true, free[0], free[1]];
    let mut law = start(points, free);
    let mut damping = 1e-3;
    for _ in 0..STEPS_MAX {
        let before = law.squares(points);
        let Some(next) = step(points, &law, free, damping) else { break };
        let after = next.squares(points);
        if next.is_usable(points) && after <= before {
            law = next;
            damping = (damping / 10.0).max(1e-12);
            if before - after <= GAIN_MIN * before {
                break;
            }
        } else {
            damping *= 10.0;
            if damping > 1e12 {
                break;
            }
        }
    }
    law.is_law().then_some(law)
}

/// The solution of N/X = 1/λ + σ/λ·(N−1) + κ/λ·N(N−1), or a straight line if that is none.
fn start(points: &[Measured], free: [bool; 3]) -> Law {
    let mut matrix = [[0.0; 3]; 3];
    let mut right = [0.0; 3];
    for point in points {
        let others = point.hosts - 1.0;
        let terms = [1.0, others, others * point.hosts];
        accumulate(&mut matrix, &mut right, &terms, point.hosts / point.tps);
    }
    let linear = solve_linear(matrix, right, free).map(|[a, b, c]| Law {
        lambda: 1.0 / a,
        sigma: b / a,
        kappa: c / a,
    });
    let line = || {
        let product: f64 = points.iter().map(|point| point.hosts * point.tps).sum();
        let square: f64 = points.iter().map(|point| point.hosts * point.hosts).sum();
        Law { lambda: product / square, sigma: 0.0, kappa: 0.0 }
    };
    linear.filter(|law| law.is_usable(points)).unwrap_or_else(line)
}

/// One step of Levenberg and Marquardt.
fn step(points: &[Measured], law: &Law, free: [bool; 3], damping: f64) -> Option<Law> {
    let mut matrix = [[0.0; 3]; 3];
    let mut right = [0.0; 3];
    for point in points {
        let missing = point.tps - law.at(point.hosts);
        accumulate(&mut matrix, &mut right, &law.slopes(point.hosts), missing);
    }
    for (index, row) in matrix.iter_mut().enumerate() {
        row[index] *= 1.0 + damping;
    }
    let [lambda, sigma, kappa] = solve_linear(matrix, right, free)?;
    let (lambda, sigma, kappa) = (law.lambda + lambda, law.sigma + sigma, law.kappa + kappa);
    Some(Law { lambda, sigma, kappa })
}

/// Adds an equation to normal equations.
fn accumulate(matrix: &mut [[f64; 3]; 3], right: &mut [f64; 3], terms: &[f64; 3], value: f64) {
    for (row, (sum, term)) in matrix.iter_mut().zip(right.iter_mut().zip(terms)) {
        *sum += term * value;
        row.iter_mut().zip(terms).for_each(|(cell, other)| *cell += term * other);
    }
}

/// Solves symmetric equations in those unknowns that are free; the others are 0.
fn solve_linear(
    mut matrix: [[f64; 3]; 3],
    mut right: [f64; 3],
    free: [bool; 3],
) -> Option<[f64; 3]> {
    // Unknowns differ by orders of magnitude: rows and columns are scaled to a diagonal of ones.
    let scale = [0, 1, 2].map(|index| matrix[index][index].sqrt());
    for row in 0..3 {
        for column in 0..3 {
            let is_used = free[row] && free[column] && scale[row] > 0.0 && scale[column] > 0.0;
            let one = if row == column { 1.0 } else { 0.0 };
            matrix[row][column] =
                if is_used { matrix[row][column] / (scale[row] * scale[column]) } else { one };
        }
        let is_used = free[row] && scale[row] > 0.0;
        right[row] = if is_used { right[row] / scale[row] } else { 0.0 };
    }
    for pivot in 0..3 {
        let best = (pivot..3)
            .max_by(|a, b| matrix[*a][pivot].abs().total_cmp(&matrix[*b][pivot].abs()))?;
        matrix.swap(pivot, best);
        right.swap(pivot, best);
        if matrix[pivot][pivot].abs() < 1e-13 {
            return None;
        }
        for row in 0..3 {
            if row != pivot {
                let factor = matrix[row][pivot] / matrix[pivot][pivot];
                let above = matrix[pivot];
                matrix[row].iter_mut().zip(above).for_each(|(cell, other)| *cell -= factor * other);
                right[row] -= factor * right[pivot];
            }
        }
    }
    let solution = [0, 1, 2].map(|index| match free[index] && scale[index] > 0.0 {
        true => right[index] / matrix[index][index] / scale[index],
        false => 0.0,
    });
    solution.iter().all(|value| value.is_finite()).then_some(solution)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOSTS: [f64; 5] = [1.0, 2.0, 4.0, 8.0, 16.0];

    fn points(hosts: &[f64], law: Law) -> Vec<Measured> {
        hosts.iter().map(|&hosts| Measured { hosts, tps: law.at(hosts) }).collect()
    }

    #[track_caller]
    fn assert_near(found: f64, wanted: f64, tolerance: f64) {
        assert!((found - wanted).abs() <= tolerance, "{found} is not {wanted} ± {tolerance}");
    }

    #[test]
    fn a_straight_line_has_neither_contention_nor_crosstalk() {
        let line = Law { lambda: 950.0, sigma: 0.0, kappa: 0.0 };
        let fit = fit(&points(&HOSTS, line)).unwrap();
        assert_near(fit.lambda, 950.0, 1e-6);
        assert_near(fit.sigma, 0.0, 1e-9);
        assert_near(fit.kappa, 0.0, 1e-9);
        assert_near(fit.r_squared, 1.0, 1e-12);
    }

    #[test]
    fn faster_than_linear_stays_within_the_bounds() {
        let tps = [1_000.0, 2_100.0, 4_400.0, 9_300.0];
        let points = HOSTS.iter().zip(tps).map(|(&hosts, tps)| Measured { hosts, tps });
        let fit = fit(&points.collect::<Vec<_>>()).unwrap();
        assert_eq!((fit.sigma, fit.kappa), (0.0, 0.0));
        assert!(fit.lambda > 1_000.0 && fit.r_squared < 1.0, "{fit:?}");
    }

    #[test]
    fn throughput_that_falls_has_its_peak_where_it_was() {
        let law = Law { lambda: 2_000.0, sigma: 0.04, kappa: 0.015 };
        let fit = fit(&points(&[1.0, 2.0, 4.0, 8.0, 16.0, 32.0], law)).unwrap();
        assert_near(fit.peak().unwrap(), 8.0, 0.01);
        assert!(fit.at(32.0) < fit.at(8.0));
        assert_near(fit.residuals.iter().sum(), 0.0, 1e-3);
    }

    #[test]
    fn equal_throughput_everywhere_is_all_contention() {
        let flat: Vec<_> = HOSTS.iter().map(|&hosts| Measured { hosts, tps: 700.0 }).collect();
        let fit = fit(&flat).unwrap();
        assert_near(fit.lambda, 700.0, 1e-3);
        assert_near(fit.sigma, 1.0, 1e-6);
        assert_near(fit.kappa, 0.0, 1e-9);
    }

    #[test]
    fn two_numbers_of_hosts_are_refused_however_often_they_were_measured() {
        let twice = [1.0, 2.0, 1.0, 2.0];
        let law = Law { lambda: 1.0, sigma: 0.1, kappa: 0.0 };
        assert_eq!(fit(&points(&twice, law)), Err(NoFit::TooFew { found: 2 }));
        assert_eq!(fit(&[]), Err(NoFit::TooFew { found: 0 }));
    }

    #[test]
    fn what_is_no_throughput_is_refused() {
        for (hosts, tps) in [(0.0, 5.0), (2.0, 0.0), (2.0, -1.0), (f64::INFINITY, 1.0)] {
            let points = [Measured { hosts, tps }; 4];
            assert_eq!(fit(&points), Err(NoFit::BadPoint { hosts, tps }));
        }
        assert!(fit(&[Measured { hosts: 1.0, tps: f64::NAN }; 3]).is_err());
    }

    proptest! {
        #[test]
        fn exact_data_gives_the_law_back(
            lambda in 1.0..1e6f64,
            sigma in 0.0..0.8f64,
            kappa in 0.0..0.05f64,
        ) {
            let law = Law { lambda, sigma, kappa };
            let fit = fit(&points(&HOSTS, law)).unwrap();
            prop_assert!((fit.lambda / lambda - 1.0).abs() < 1e-5, "{:?}", fit);
            prop_assert!((fit.sigma - sigma).abs() < 1e-4, "{:?}", fit);
            prop_assert!((fit.kappa - kappa).abs() < 1e-5, "{:?}", fit);
            prop_assert!(fit.r_squared > 1.0 - 1e-9);
        }

        #[test]
        fn noise_of_two_percent_moves_it_little_and_no_other_law_is_better(
            sigma in 0.0..0.3f64,
            kappa in 0.0..0.01f64,
            noise in proptest::collection::vec(-0.02..0.02f64, 5),
            other in (0.9..1.1f64, 0.0..0.4f64, 0.0..0.02f64),
        ) {
            let mut points = points(&HOSTS, Law { lambda: 5_000.0, sigma, kappa });
            points.iter_mut().zip(noise).for_each(|(point, noise)| point.tps *= 1.0 + noise);
            let fit = fit(&points).unwrap();
            let squares: f64 = fit.residuals.iter().map(|residual| residual.powi(2)).sum();
            let rival = Law { lambda: 5_000.0 * other.0, sigma: other.1, kappa: other.2 };
            prop_assert!(squares <= rival.squares(&points) * (1.0 + 1e-6), "{:?}", fit);
            for (point, fitted) in points.iter().zip(&fit.fitted) {
                prop_assert!((fitted / point.tps - 1.0).abs() < 0.25, "{:?}", fit);
            }
        }
    }
}
