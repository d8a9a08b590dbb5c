/* Floating point: the sun and four planets, a step of 0.01 days at a time, in double.
 *
 * Usage: nbody STEPS. Prints the bits of the energy before and after, so that one wrong rounding shows.
 * Only + - * / and sqrt are used, which IEEE 754 defines to the last bit; compile with
 * -ffp-contract=off, or the compiler may leave out a rounding.
 */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BODIES 5
#define PI 3.141592653589793
#define SOLAR_MASS (4 * PI * PI)
#define DAYS_A_YEAR 365.24

struct body {
	double x, y, z, vx, vy, vz, mass;
};

/* Positions in astronomical units, velocities in units a year. The orbits are made up: plausible radii,
 * inclinations and eccentricities, no ephemeris. */
static struct body bodies[BODIES] = {
	{ 0, 0, 0, 0, 0, 0, SOLAR_MASS },
	{ 4.84, -1.16, -0.10, 0.00166 * DAYS_A_YEAR, 0.00769 * DAYS_A_YEAR, -0.00007 * DAYS_A_YEAR,
	  0.00095 * SOLAR_MASS },
	{ 8.34, 4.12, -0.40, -0.00277 * DAYS_A_YEAR, 0.00499 * DAYS_A_YEAR, 0.00002 * DAYS_A_YEAR,
	  0.00029 * SOLAR_MASS },
	{ 12.89, -15.11, -0.22, 0.00296 * DAYS_A_YEAR, 0.00238 * DAYS_A_YEAR, -0.00003 * DAYS_A_YEAR,
	  0.00004 * SOLAR_MASS },
	{ 15.38, -25.92, 0.18, 0.00268 * DAYS_A_YEAR, 0.00163 * DAYS_A_YEAR, -0.00010 * DAYS_A_YEAR,
	  0.00005 * SOLAR_MASS },
};

static void step(double dt)
{
	for (int i = 0; i < BODIES; i++) {
		struct body *a = &bodies[i];
		for (int j = i + 1; j < BODIES; j++) {
			struct body *b = &bodies[j];
			double dx = a->x - b->x, dy = a->y - b->y, dz = a->z - b->z;
			double square = dx * dx + dy * dy + dz * dz;
			double pull = dt / (square * sqrt(square));
			a->vx -= dx * b->mass * pull;
			a->vy -= dy * b->mass * pull;
			a->vz -= dz * b->mass * pull;
			b->vx += dx * a->mass * pull;
			b->vy += dy * a->mass * pull;
			b->vz += dz * a->mass * pull;
		}
	}
	for (int i = 0; i < BODIES; i++) {
		bodies[i].x += dt * bodies[i].vx;
		bodies[i].y += dt * bodies[i].vy;
		bodies[i].z += dt * bodies[i].vz;
	}
}

static uint64_t energy(void)
{
	double sum = 0;
	for (int i = 0; i < BODIES; i++) {
		struct body *a = &bodies[i];
		sum += 0.5 * a->mass * (a->vx * a->vx + a->vy * a->vy + a->vz * a->vz);
		for (int j = i + 1; j < BODIES; j++) {
			struct body *b = &bodies[j];
			double dx = a->x - b->x, dy = a->y - b->y, dz = a->z - b->z;
			sum -= a->mass * b->mass / sqrt(dx * dx + dy * dy + dz * dz);
		}
	}
	uint64_t bits;
	memcpy(&bits, &sum, sizeof bits);
	return bits;
}

int main(int argc, char **argv)
{
	long steps = argc > 1 ? atol(argv[1]) : 1000;
	printf("%016" PRIx64, energy());
	for (long i = 0; i < steps; i++)
		step(0.01);
	printf("-%016" PRIx64 "\n", energy());
	return 0;
}
