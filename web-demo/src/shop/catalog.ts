//! What the shop sells. Invariant: ids are stable, for events and addresses name them.

import runner from '../art/runner.svg';
import boot from '../art/boot.svg';
import loafer from '../art/loafer.svg';
import hightop from '../art/hightop.svg';
import beans from '../art/beans.svg';
import dripper from '../art/dripper.svg';
import moka from '../art/moka.svg';
import cup from '../art/cup.svg';
import desk from '../art/desk.svg';
import pendant from '../art/pendant.svg';
import mushroom from '../art/mushroom.svg';
import lantern from '../art/lantern.svg';
import monstera from '../art/monstera.svg';
import cactus from '../art/cactus.svg';
import snake from '../art/snake.svg';
import olive from '../art/olive.svg';

export type CategoryId = 'shoes' | 'coffee' | 'lamps' | 'plants';

export interface Category {
  id: CategoryId;
  name: string;
  line: string;
}

export interface Product {
  id: string;
  category: CategoryId;
  name: string;
  price: number;
  art: string;
  line: string;
  about: string;
  facts: readonly (readonly [string, string])[];
}

export const categories: readonly Category[] = [
  { id: 'shoes', name: 'Shoes', line: 'Made to be resoled, not replaced.' },
  { id: 'coffee', name: 'Coffee', line: 'For the first quiet minute of the day.' },
  { id: 'lamps', name: 'Lamps', line: 'Warm light, where you need it.' },
  { id: 'plants', name: 'Plants', line: 'Hard to kill. We have tried.' },
];

export const products: readonly Product[] = [
  {
    id: 'shoe_runner', category: 'shoes', name: 'Estuary Runner', price: 118, art: runner, line: 'Light trail shoe, recycled knit',
    about: 'A knit upper that dries on the radiator by morning, over a sole that holds on wet boardwalk. It weighs about as much as the book you meant to bring.',
    facts: [['Upper', 'Recycled polyester knit'], ['Weight', '238 g, size 42'], ['Drop', '6 mm']],
  },
  {
    id: 'shoe_boot', category: 'shoes', name: 'Headland Boot', price: 189, art: boot, line: 'Waxed leather, stitched welt',
    about: 'A boot for the months that cannot decide. Waxed leather keeps the weather out; the stitched welt means any cobbler can give it a second life.',
    facts: [['Upper', 'Waxed full-grain leather'], ['Welt', 'Goodyear, resoleable'], ['Lining', 'Wool felt']],
  },
  {
    id: 'shoe_loafer', category: 'shoes', name: 'Quay Loafer', price: 142, art: loafer, line: 'Soft moccasin, no break-in',
    about: 'Cut from one piece and turned by hand. Wear it without socks in June and with thick ones in October.',
    facts: [['Upper', 'Vegetable-tanned calf'], ['Sole', 'Crepe rubber'], ['Made in', 'Porto']],
  },
  {
    id: 'shoe_hightop', category: 'shoes', name: 'Canvas High', price: 84, art: hightop, line: 'Organic canvas, gum sole',
    about: 'Twelve-ounce canvas, a gum sole and no logo. It will look better next year.',
    facts: [['Upper', 'Organic cotton canvas'], ['Sole', 'Natural gum rubber'], ['Care', 'Machine wash, cold']],
  },
  {
    id: 'coffee_beans', category: 'coffee', name: 'Harbour Blend', price: 14.5, art: beans, line: 'Whole beans, 340 g',
    about: 'Cocoa first, then dried fig. Roasted on Tuesdays, posted on Wednesdays, gone by the weekend.',
    facts: [['Origin', 'Huila and Sidama'], ['Roast', 'Medium'], ['Best in', 'Filter, moka pot']],
  },
  {
    id: 'coffee_dripper', category: 'coffee', name: 'Slow Dripper', price: 38, art: dripper, line: 'Glass and oak pour-over',
    about: 'Borosilicate glass with an oak collar, so you can hold it while it is still worth drinking.',
    facts: [['Holds', '600 ml'], ['Glass', 'Borosilicate'], ['Fits', 'Size 02 papers']],
  },
  {
    id: 'coffee_moka', category: 'coffee', name: 'Stovetop No. 3', price: 46, art: moka, line: 'Moka pot for three',
    about: 'Brushed steel, a proper hinge and a handle that stays cool. It gurgles when it is done, like a small harbour.',
    facts: [['Holds', '3 cups'], ['Body', 'Stainless steel'], ['Hob', 'Gas, electric, induction']],
  },
  {
    id: 'coffee_cup', category: 'coffee', name: 'Tide Cup', price: 22, art: cup, line: 'Stoneware, 220 ml',
    about: 'Thrown by two people in a shed near the dunes. The glaze line is never in the same place twice.',
    facts: [['Holds', '220 ml'], ['Clay', 'Stoneware'], ['Dishwasher', 'Yes']],
  },
  {
    id: 'lamp_desk', category: 'lamps', name: 'Drafting Lamp', price: 129, art: desk, line: 'Balanced arm, warm dimmer',
    about: 'Three joints and a counterweight: it stays where you leave it. Dims to a candle.',
    facts: [['Light', '2700 K, 600 lm'], ['Arm', 'Powder-coated steel'], ['Reach', '72 cm']],
  },
  {
    id: 'lamp_pendant', category: 'lamps', name: 'Buoy Pendant', price: 164, art: pendant, line: 'Spun aluminium dome',
    about: 'One lamp over one table, low enough to make a room of it.',
    facts: [['Shade', 'Spun aluminium, 38 cm'], ['Cable', 'Linen, 2 m'], ['Socket', 'E27']],
  },
  {
    id: 'lamp_mushroom', category: 'lamps', name: 'Lido Table Lamp', price: 98, art: mushroom, line: 'Opal glass, cordless',
    about: 'Opal glass that glows rather than shines, for twelve hours between charges. Dinner outside is on.',
    facts: [['Runs', '12 h'], ['Glass', 'Mouth-blown opal'], ['Charge', 'USB-C']],
  },
  {
    id: 'lamp_lantern', category: 'lamps', name: 'Paper Lantern', price: 56, art: lantern, line: 'Washi on a bamboo frame',
    about: 'Folds flat for the move, opens into a moon for the evening after.',
    facts: [['Shade', 'Washi paper, 45 cm'], ['Frame', 'Bamboo'], ['Socket', 'E27']],
  },
  {
    id: 'plant_monstera', category: 'plants', name: 'Monstera', price: 42, art: monstera, line: 'Large leaves, forgiving nature',
    about: 'Puts out a new leaf whenever you have stopped watching. Water it when you remember.',
    facts: [['Height', '60 cm'], ['Light', 'Bright, no direct sun'], ['Water', 'Every 8 days']],
  },
  {
    id: 'plant_cactus', category: 'plants', name: 'Desert Column', price: 24, art: cactus, line: 'Asks for very little',
    about: 'It would rather you left. Comes back from holidays in better shape than you.',
    facts: [['Height', '28 cm'], ['Light', 'Full sun'], ['Water', 'Monthly']],
  },
  {
    id: 'plant_snake', category: 'plants', name: 'Snake Plant', price: 32, art: snake, line: 'Lives in dark corners',
    about: 'The plant for the hallway. It stands up straight and keeps its opinions to itself.',
    facts: [['Height', '55 cm'], ['Light', 'Anything'], ['Water', 'Every 3 weeks']],
  },
  {
    id: 'plant_olive', category: 'plants', name: 'Young Olive', price: 68, art: olive, line: 'A tree for the balcony',
    about: 'Silver leaves, slow habits. With patience, eight olives.',
    facts: [['Height', '90 cm'], ['Light', 'Full sun'], ['Hardy to', '−8 °C']],
  },
];

const byProductId = new Map(products.map((product) => [product.id, product]));
const byCategoryId = new Map<string, Category>(categories.map((category) => [category.id, category]));

export function product(id: string): Product | undefined {
  return byProductId.get(id);
}

export function category(id: string): Category | undefined {
  return byCategoryId.get(id);
}

export function inCategory(id: CategoryId): Product[] {
  return products.filter((each) => each.category === id);
}

/** Products whose name, line or category holds every word. */
export function find(query: string): Product[] {
  const words = query.toLowerCase().split(/\s+/).filter(Boolean);
  if (words.length === 0) return [];
  return products.filter((each) => {
    const text = `${each.name} ${each.line} ${each.category}`.toLowerCase();
    return words.every((word) => text.includes(word));
  });
}
