-- What every contestant's database has: the table that a job of the second kind writes one row to.
CREATE TABLE written (n int, at timestamptz DEFAULT now());
