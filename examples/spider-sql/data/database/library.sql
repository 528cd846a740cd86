CREATE TABLE author (id INTEGER PRIMARY KEY, name TEXT, country TEXT);
CREATE TABLE book (id INTEGER PRIMARY KEY, title TEXT, year INTEGER, author_id INTEGER REFERENCES author(id));
INSERT INTO author VALUES (1, 'Ida Holm', 'Norway'), (2, 'Paul Arend', 'Belgium'), (3, 'Mira Sand', 'Norway');
INSERT INTO book VALUES
  (1, 'The Lighthouse', 1931, 1), (2, 'Salt and Snow', 1938, 1), (3, 'A Short Map', 1952, 2),
  (4, 'North Window', 1967, 3), (5, 'The Ferry', 1971, 3), (6, 'Second Ferry', 1975, 3);
