-- Database: rows made, indexed, joined, grouped, changed and deleted, all in memory.
-- ROWS is replaced by their number. Prints sums that depend on every row.
CREATE TABLE item (id INTEGER PRIMARY KEY, kind INTEGER, price INTEGER, name TEXT);
CREATE TABLE kind (id INTEGER PRIMARY KEY, label TEXT);
BEGIN;
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ROWS)
    INSERT INTO item SELECT i, i * 7919 % 101, i * 104729 % 10007, printf('item-%05d', i * 15485863 % ROWS) FROM n;
WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 100)
    INSERT INTO kind SELECT i, 'kind ' || (i * i % 17) FROM n;
COMMIT;
CREATE INDEX item_name ON item (name);
CREATE INDEX item_kind ON item (kind, price);
SELECT label, count(*), sum(price), min(name), max(name)
    FROM item JOIN kind ON kind.id = item.kind GROUP BY label ORDER BY label;
SELECT count(*), sum(a.price * b.price % 1009)
    FROM item a JOIN item b ON b.name = printf('item-%05d', a.price) WHERE a.id % 3 = 0;
UPDATE item SET price = price + kind WHERE name LIKE 'item-%7';
DELETE FROM item WHERE kind BETWEEN 40 AND 60;
SELECT count(*), sum(price), sum(length(name)), sum(price * price % 1013) FROM item;
SELECT id, name, price FROM item ORDER BY price DESC, name LIMIT 5;
