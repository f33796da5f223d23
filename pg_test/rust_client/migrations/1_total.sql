ALTER TABLE item ALTER amount TYPE bigint, ALTER amount SET NOT NULL, ALTER amount SET DEFAULT 7;
ALTER TABLE item RENAME amount TO total;
