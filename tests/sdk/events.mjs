// The events that the suite sends and expects.
export const SDKS = ['segment', 'rudderstack'];

export function eventAt(sdk, i, userId) {
  if (i === 0) {
    return { type: 'identify', userId, traits: { name: 'Zoë Müller', plan: sdk } };
  }
  if (i % 10 === 0) {
    return { type: 'page', userId, name: 'Product', properties: { sdk, n: i, url: `https://shop.example/p/${i}` } };
  }
  return {
    type: 'track',
    userId,
    event: 'Order Completed',
    properties: { sdk, n: i, order_id: `${sdk}-${i}`, total: total(i), currency: 'EUR', note: 'naïve “quotes” 🛒' },
  };
}

// total returns an amount with whole cents, so that sums need no rounding.
export function total(i) {
  return (i * 37 % 10000) / 100;
}
