-- A renamed table is made by hand: a copy of the source's schema would bear the source's name.
create schema catalog;
create table catalog.items (id int primary key, title text not null, price numeric(10,2) not null);
