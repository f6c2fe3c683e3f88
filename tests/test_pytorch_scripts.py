"""Programs as people write them for PyTorch, run here with nothing changed but the imports.

Each takes what a script imports (torch, nn, optim, F), trains a little and gives its losses.
Weights and data are drawn by NumPy, so parity/test_pytorch_scripts.py can run the same programs
with PyTorch, and the losses must be equal. No program knows which library it was given.
"""

import math
import random

import numpy as np
import pytest

import tinygrad_rnn

NAMES = {
    "Italian": ["rossi", "bianchi", "russo", "ferrari", "esposito", "romano"],
    "Polish": ["nowak", "kowalski", "wisniewski", "wojcik", "kaminski", "lewandowski"],
    "Korean": ["kim", "lee", "park", "choi", "jung", "kang"],
}
PROVERB = "the early bird catches the worm, and the late mouse gets the cheese. "


def set_weights(torch, module, seed=0):
    """Give a module weights that depend on their sizes and the seed only."""
    draw = np.random.default_rng(seed)
    with torch.no_grad():
        for p in module.parameters():
            bound = 1 / math.sqrt(p.size(-1))
            values = draw.uniform(-bound, bound, tuple(p.shape))
            p.copy_(torch.from_numpy(values.astype("float32")))


def classify_names(torch, nn, optim, F):
    """A cell of two linear layers reads a name letter by letter; SGD is written out."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    categories = list(NAMES)

    def line_to_tensor(line):
        tensor = torch.zeros(len(line), 1, len(letters))
        for place, letter in enumerate(line):
            tensor[place][0][letters.find(letter)] = 1
        return tensor

    class RNN(nn.Module):
        def __init__(self, input_size, hidden_size, output_size):
            super(RNN, self).__init__()  # noqa: UP008 - as scripts have it
            self.hidden_size = hidden_size
            self.i2h = nn.Linear(input_size + hidden_size, hidden_size)
            self.i2o = nn.Linear(input_size + hidden_size, output_size)
            self.softmax = nn.LogSoftmax(dim=1)

        def forward(self, input, hidden):
            combined = torch.cat((input, hidden), 1)
            hidden = torch.tanh(self.i2h(combined))
            output = self.softmax(self.i2o(combined))
            return output, hidden

        def initHidden(self):
            return torch.autograd.Variable(torch.zeros(1, self.hidden_size))

    rnn = RNN(len(letters), 16, len(categories))
    set_weights(torch, rnn)
    criterion = nn.NLLLoss()
    learning_rate = 0.1
    losses, right = [], 0
    for epoch in range(4):
        for number in range(6):
            for category, names in NAMES.items():
                category_tensor = torch.tensor([categories.index(category)], dtype=torch.long)
                line_tensor = line_to_tensor(names[number])
                hidden = rnn.initHidden()
                rnn.zero_grad()
                for i in range(line_tensor.size()[0]):
                    output, hidden = rnn(line_tensor[i], hidden)
                loss = criterion(output, category_tensor)
                loss.backward()
                for p in rnn.parameters():
                    p.data.add_(p.grad.data, alpha=-learning_rate)
                losses.append(loss.data.item())
                _, top_i = output.topk(1)
                right += categories[top_i[0].item()] == category if epoch == 3 else 0
    assert right >= 12  # of 18; guessing gives 6
    return losses


def generate_text(torch, nn, optim, F):
    """An LSTM over characters, its state carried from chunk to chunk and cut off between them."""
    chars = tuple(sorted(set(PROVERB)))
    int2char = dict(enumerate(chars))
    char2int = {ch: ii for ii, ch in int2char.items()}
    encoded = np.array([char2int[ch] for ch in PROVERB * 4])

    class CharRNN(nn.Module):
        def __init__(self, tokens, n_hidden=24, n_layers=2, drop_prob=0.0):
            super().__init__()
            self.n_layers = n_layers
            self.n_hidden = n_hidden
            self.lstm = nn.LSTM(
                len(tokens), n_hidden, n_layers, dropout=drop_prob, batch_first=True
            )
            self.dropout = nn.Dropout(drop_prob)
            self.fc = nn.Linear(n_hidden, len(tokens))

        def forward(self, x, hidden):
            r_output, hidden = self.lstm(x, hidden)
            out = self.dropout(r_output)
            out = out.contiguous().view(-1, self.n_hidden)
            return self.fc(out), hidden

        def init_hidden(self, batch_size):
            weight = next(self.parameters()).data
            return (
                weight.new(self.n_layers, batch_size, self.n_hidden).zero_(),
                weight.new_zeros(self.n_layers, batch_size, self.n_hidden),
            )

    net = CharRNN(chars)
    set_weights(torch, net)
    net.train()
    opt = optim.Adam(net.parameters(), lr=0.02)
    scheduler = optim.lr_scheduler.StepLR(opt, step_size=5, gamma=0.5)
    criterion = nn.CrossEntropyLoss()
    batch_size, seq_length = 4, 17
    rows = encoded.reshape(batch_size, -1)
    losses = []
    for _epoch in range(6):
        h = net.init_hidden(batch_size)
        for n in range(0, rows.shape[1] - seq_length, seq_length):
            x = F.one_hot(torch.from_numpy(rows[:, n : n + seq_length]), len(chars)).float()
            y = torch.from_numpy(rows[:, n + 1 : n + 1 + seq_length])
            h = tuple([each.data for each in h])
            net.zero_grad()
            output, h = net(x, h)
            loss = criterion(output, y.reshape(-1).long())
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            opt.step()
            losses.append(loss.item())
        scheduler.step()
    assert opt.param_groups[0]["lr"] == pytest.approx(0.01)

    net.eval()
    h = net.init_hidden(1)
    text = "the "
    with torch.no_grad():
        for char in text:
            p, h = net(F.one_hot(torch.tensor([[char2int[char]]]), len(chars)).float(), h)
        for _ in range(10):
            p = F.softmax(p / 0.8, dim=1).data.cpu()
            p, top_ch = p.topk(3)
            top_ch, p = top_ch.numpy().squeeze(), p.numpy().squeeze()
            char = int2char[int(top_ch[p.argmax()])]
            text += char
            p, h = net(F.one_hot(torch.tensor([[char2int[char]]]), len(chars)).float(), h)
    assert len(text) == 14
    return losses


def translate(torch, nn, optim, F):
    """A GRU encoder and a decoder with attention that learn to say numbers backwards."""
    SOS_token, EOS_token, MAX_LENGTH = 0, 1, 6
    device = torch.device("cpu")

    class EncoderRNN(nn.Module):
        def __init__(self, input_size, hidden_size):
            super().__init__()
            self.hidden_size = hidden_size
            self.embedding = nn.Embedding(input_size, hidden_size)
            self.gru = nn.GRU(hidden_size, hidden_size)

        def forward(self, input, hidden):
            embedded = self.embedding(input).view(1, 1, -1)
            output, hidden = self.gru(embedded, hidden)
            return output, hidden

        def initHidden(self):
            return torch.zeros(1, 1, self.hidden_size, device=device)

    class AttnDecoderRNN(nn.Module):
        def __init__(self, hidden_size, output_size, max_length=MAX_LENGTH):
            super().__init__()
            self.embedding = nn.Embedding(output_size, hidden_size)
            self.attn = nn.Linear(hidden_size * 2, max_length)
            self.attn_combine = nn.Linear(hidden_size * 2, hidden_size)
            self.gru = nn.GRU(hidden_size, hidden_size)
            self.out = nn.Linear(hidden_size, output_size)

        def forward(self, input, hidden, encoder_outputs):
            embedded = self.embedding(input).view(1, 1, -1)
            attn_weights = F.softmax(self.attn(torch.cat((embedded[0], hidden[0]), 1)), dim=1)
            attn_applied = torch.bmm(attn_weights.unsqueeze(0), encoder_outputs.unsqueeze(0))
            output = torch.cat((embedded[0], attn_applied[0]), 1)
            output = F.relu(self.attn_combine(output).unsqueeze(0))
            output, hidden = self.gru(output, hidden)
            return F.log_softmax(self.out(output[0]), dim=1), hidden, attn_weights

    encoder, decoder = EncoderRNN(8, 12).to(device), AttnDecoderRNN(12, 8).to(device)
    set_weights(torch, encoder)
    set_weights(torch, decoder, 1)
    encoder_optimizer = optim.SGD(encoder.parameters(), lr=0.1)
    decoder_optimizer = optim.SGD(decoder.parameters(), lr=0.1)
    criterion = nn.NLLLoss()
    draw = random.Random(0)
    losses = []
    for _ in range(30):
        words = [draw.randrange(2, 8) for _ in range(draw.randrange(2, MAX_LENGTH))]
        pair = [*words, EOS_token], [*reversed(words), EOS_token]
        input_tensor, target_tensor = (
            torch.tensor(indexes, dtype=torch.long, device=device).view(-1, 1) for indexes in pair
        )
        encoder_hidden = encoder.initHidden()
        encoder_optimizer.zero_grad()
        decoder_optimizer.zero_grad()
        encoder_outputs = torch.zeros(MAX_LENGTH, encoder.hidden_size, device=device)
        loss = 0
        for ei in range(input_tensor.size(0)):
            encoder_output, encoder_hidden = encoder(input_tensor[ei], encoder_hidden)
            encoder_outputs[ei] = encoder_output[0, 0]
        decoder_input = torch.tensor([[SOS_token]], device=device)
        decoder_hidden = encoder_hidden
        teacher_forcing = draw.random() < 0.5
        di = -1
        for di in range(target_tensor.size(0)):
            decoder_output, decoder_hidden, _attention = decoder(
                decoder_input, decoder_hidden, encoder_outputs
            )
            loss += criterion(decoder_output, target_tensor[di])
            if teacher_forcing:
                decoder_input = target_tensor[di]
            else:
                _topv, topi = decoder_output.topk(1)
                decoder_input = topi.squeeze().detach()
                if decoder_input.item() == EOS_token:
                    break
        loss.backward()
        encoder_optimizer.step()
        decoder_optimizer.step()
        losses.append(loss.item() / (di + 1))
    return losses


def translate_batches(torch, nn, optim, F):
    """Encoder, decoder and the module that joins them; outputs are assigned into a tensor."""

    class Encoder(nn.Module):
        def __init__(self, input_dim, emb_dim, hid_dim):
            super().__init__()
            self.embedding = nn.Embedding(input_dim, emb_dim)
            self.rnn = nn.LSTM(emb_dim, hid_dim, 1)

        def forward(self, src):
            _outputs, (hidden, cell) = self.rnn(self.embedding(src))
            return hidden, cell

    class Decoder(nn.Module):
        def __init__(self, output_dim, emb_dim, hid_dim):
            super().__init__()
            self.output_dim = output_dim
            self.embedding = nn.Embedding(output_dim, emb_dim)
            self.rnn = nn.LSTM(emb_dim, hid_dim, 1)
            self.fc_out = nn.Linear(hid_dim, output_dim)

        def forward(self, input, hidden, cell):
            embedded = self.embedding(input.unsqueeze(0))
            output, (hidden, cell) = self.rnn(embedded, (hidden, cell))
            return self.fc_out(output.squeeze(0)), hidden, cell

    class Seq2Seq(nn.Module):
        def __init__(self, encoder, decoder, device):
            super().__init__()
            self.encoder, self.decoder, self.device = encoder, decoder, device

        def forward(self, src, trg, teacher_forcing_ratio=0.5):
            trg_len, batch_size = trg.shape
            outputs = torch.zeros(trg_len, batch_size, self.decoder.output_dim).to(self.device)
            hidden, cell = self.encoder(src)
            input = trg[0, :]
            for t in range(1, trg_len):
                output, hidden, cell = self.decoder(input, hidden, cell)
                outputs[t] = output
                top1 = output.argmax(1)
                input = trg[t] if draw.random() < teacher_forcing_ratio else top1
            return outputs

    def init_weights(m):
        for _name, param in m.named_parameters():
            nn.init.uniform_(param.data, -0.08, 0.08)

    draw = random.Random(5)
    device = torch.device("cpu")
    model = Seq2Seq(Encoder(9, 6, 14), Decoder(9, 6, 14), device).to(device)
    model.apply(init_weights)
    set_weights(torch, model)
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == 2707
    optimizer = optim.Adam(model.parameters(), lr=0.01)
    criterion = nn.CrossEntropyLoss(ignore_index=0)
    numbers = np.random.default_rng(1)
    losses = []
    for _ in range(12):
        src = torch.tensor(numbers.integers(2, 9, (5, 7)))
        trg = torch.cat((torch.ones(1, 7).long(), src.flip(0)))
        trg[-1, ::3] = 0  # padding
        optimizer.zero_grad()
        output = model(src, trg)
        output_dim = output.shape[-1]
        output = output[1:].view(-1, output_dim)
        loss = criterion(output, trg[1:].view(-1))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1)
        optimizer.step()
        losses.append(loss.item())
    return losses


def custom_lstm(torch, nn, optim, F):
    """An LSTM written out with four gates in one matrix, over sequences that hold a marked sum."""
    Parameter = nn.Parameter

    class CustomLSTM(nn.Module):
        def __init__(self, input_sz, hidden_sz):
            super().__init__()
            self.input_sz = input_sz
            self.hidden_size = hidden_sz
            self.W = nn.Parameter(torch.Tensor(input_sz, hidden_sz * 4))
            self.U = nn.Parameter(torch.FloatTensor(hidden_sz, hidden_sz * 4))
            self.bias = Parameter(torch.Tensor(hidden_sz * 4))
            self.reset_parameters()

        def reset_parameters(self):
            stdv = 1.0 / math.sqrt(self.hidden_size)
            for weight in self.parameters():
                weight.data.uniform_(-stdv, stdv)

        def forward(self, x, init_states=None):
            bs, seq_sz, _ = x.size()
            hidden_seq = []
            if init_states is None:
                h_t, c_t = (
                    torch.zeros(bs, self.hidden_size).to(x.device),
                    torch.zeros(bs, self.hidden_size).to(x.device),
                )
            else:
                h_t, c_t = init_states
            HS = self.hidden_size
            for t in range(seq_sz):
                x_t = x[:, t, :]
                gates = torch.addmm(self.bias, x_t, self.W) + h_t @ self.U
                i_t, f_t, g_t, o_t = (
                    torch.sigmoid(gates[:, :HS]),
                    torch.sigmoid(gates[:, HS : HS * 2]),
                    torch.tanh(gates[:, HS * 2 : HS * 3]),
                    torch.sigmoid(gates[:, HS * 3 :]),
                )
                c_t = f_t * c_t + i_t * g_t
                h_t = o_t * torch.tanh(c_t)
                hidden_seq.append(h_t.unsqueeze(0))
            hidden_seq = torch.cat(hidden_seq, dim=0)
            hidden_seq = hidden_seq.transpose(0, 1).contiguous()
            return hidden_seq, (h_t, c_t)

    lstm = CustomLSTM(2, 9)
    head = nn.Linear(9, 1)
    for number, module in enumerate((lstm, head)):
        assert all(torch.isfinite(p).all() and p.abs().max() <= 1 for p in module.parameters())
        set_weights(torch, module, number)
    optimizer = optim.RMSprop([*lstm.parameters(), *head.parameters()], lr=0.01, momentum=0.9)
    draw = np.random.default_rng(2)
    losses = []
    for _ in range(15):
        values = draw.random((6, 8, 1)).astype(np.float32)
        marks = np.zeros_like(values)
        marks[:, [1, 5]] = 1
        x = torch.Tensor(np.concatenate((values, marks), -1))
        y = torch.FloatTensor((values * marks).sum(1).tolist())
        hidden_seq, (h_t, _c_t) = lstm(x)
        assert torch.equal(hidden_seq[:, -1], h_t)
        loss = F.mse_loss(head(h_t), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def predict_sine(torch, nn, optim, F):
    """Two LSTM cells in a loop continue sine waves in float64; the optimizer calls a closure."""

    class Sequence(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm1 = nn.LSTMCell(1, 11)
            self.lstm2 = nn.LSTMCell(11, 11)
            self.linear = nn.Linear(11, 1)

        def forward(self, input, future=0):
            outputs = []
            h_t = torch.zeros(input.size(0), 11, dtype=torch.double)
            c_t = torch.zeros(input.size(0), 11, dtype=torch.double)
            h_t2 = torch.zeros(input.size(0), 11, dtype=torch.double)
            c_t2 = torch.zeros(input.size(0), 11, dtype=torch.double)
            for input_t in input.split(1, dim=1):
                h_t, c_t = self.lstm1(input_t, (h_t, c_t))
                h_t2, c_t2 = self.lstm2(h_t, (h_t2, c_t2))
                output = self.linear(h_t2)
                outputs += [output]
            for _ in range(future):
                h_t, c_t = self.lstm1(output, (h_t, c_t))
                h_t2, c_t2 = self.lstm2(h_t, (h_t2, c_t2))
                output = self.linear(h_t2)
                outputs += [output]
            return torch.cat(outputs, dim=1)

    phases = np.random.default_rng(3).integers(-20, 20, 7).reshape(7, 1)
    data = np.sin((np.arange(30) + phases) / 3).astype("float64")
    input = torch.from_numpy(data[3:, :-1])
    target = torch.from_numpy(data[3:, 1:])
    test_input = torch.from_numpy(data[:3, :-1])
    test_target = torch.from_numpy(data[:3, 1:])
    seq = Sequence()
    set_weights(torch, seq)
    seq.double()
    criterion = nn.MSELoss()
    optimizer = optim.SGD(seq.parameters(), lr=0.3, nesterov=True, momentum=0.8)
    losses = []
    for _step in range(8):

        def closure():
            optimizer.zero_grad()
            out = seq(input)
            loss = criterion(out, target)
            loss.backward()
            return loss

        losses.append(optimizer.step(closure).item())
        with torch.no_grad():
            future = 5
            pred = seq(test_input, future=future)
            loss = criterion(pred[:, :-future], test_target)
            y = pred.detach().cpu().numpy()
    assert y.shape == (3, 34)
    assert y.dtype == np.float64
    return [*losses, loss.item()]


def classify_sequences(torch, nn, optim, F):
    """A bidirectional GRU over padded, packed-by-length token sequences from a DataLoader."""
    Dataset, DataLoader = torch.utils.data.Dataset, torch.utils.data.DataLoader
    pad_sequence = nn.utils.rnn.pad_sequence

    class Reviews(Dataset):
        """Sequences of tokens; the label says whether there are more even ones than odd."""

        def __init__(self, count):
            draw = np.random.default_rng(7)
            self.samples = [draw.integers(1, 9, draw.integers(3, 8)) for _ in range(count)]

        def __len__(self):
            return len(self.samples)

        def __getitem__(self, index):
            tokens = self.samples[index]
            return torch.LongTensor(tokens), float((tokens % 2 == 0).mean() > 0.5)

    def collate(batch):
        texts, labels = zip(*batch, strict=True)
        lengths = torch.LongTensor([len(text) for text in texts])
        padded = pad_sequence(texts, batch_first=True, padding_value=0)
        return padded, lengths, torch.FloatTensor(labels)

    class Classifier(nn.Module):
        def __init__(self, vocab, embed, hidden, pad_idx):
            super().__init__()
            self.embedding = nn.Embedding(vocab, embed, padding_idx=pad_idx)
            self.gru = nn.GRU(embed, hidden, num_layers=2, bidirectional=True, batch_first=True)
            self.norm = nn.LayerNorm(hidden * 2)
            self.fc = nn.Sequential(nn.Linear(hidden * 2, 8), nn.ReLU(), nn.Linear(8, 1))

        def forward(self, text, lengths):
            mask = (text != 0).unsqueeze(-1)
            output, hidden = self.gru(self.embedding(text))
            last = torch.cat((hidden[-2, :, :], hidden[-1, :, :]), dim=1)
            pooled = output.masked_fill(~mask, float("-inf")).max(dim=1)[0]
            mean = (output * mask).sum(1) / lengths.unsqueeze(1).float()
            return self.fc(self.norm(last + pooled + mean)).squeeze(1)

    model = Classifier(9, 5, 6, 0)
    set_weights(torch, model)
    with torch.no_grad():
        model.embedding.weight[model.embedding.padding_idx].fill_(0)
    criterion = nn.BCEWithLogitsLoss()
    optimizer = optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1)
    loader = DataLoader(Reviews(23), batch_size=5, shuffle=False, collate_fn=collate)
    losses, right = [], 0
    for _epoch in range(3):
        model.train()
        for text, lengths, labels in loader:
            optimizer.zero_grad(set_to_none=True)
            logits = model(text, lengths)
            loss = criterion(logits, labels)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            right += ((torch.sigmoid(logits) > 0.5).float() == labels).sum().item()
    assert 0 < right <= 69
    assert torch.equal(model.embedding.weight[0].data, torch.zeros(5))
    return losses


def penalise_gradients(torch, nn, optim, F):
    """The critic of a recurrent GAN, whose gradient along its input is drawn to norm 1."""

    class Critic(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = nn.LSTM(3, 7, batch_first=True)
            self.score = nn.Linear(7, 1)

        def forward(self, x):
            _, (h, _) = self.lstm(x)
            return self.score(h[-1])

    def gradient_penalty(critic, real, fake, alpha):
        mixed = alpha * real + (1 - alpha) * fake
        mixed.requires_grad = True
        scores = critic(mixed)
        (gradients,) = torch.autograd.grad(
            outputs=scores,
            inputs=mixed,
            grad_outputs=torch.ones_like(scores),
            create_graph=True,
            retain_graph=True,
            only_inputs=True,
        )
        gradients = gradients.reshape(gradients.size(0), -1)
        return ((gradients.norm(2, dim=1) - 1) ** 2).mean()

    critic = Critic()
    set_weights(torch, critic)
    optimizer = optim.Adam(critic.parameters(), lr=0.02, betas=(0.5, 0.9))
    draw = np.random.default_rng(8)
    losses = []
    for _ in range(6):
        real, fake = (
            torch.tensor(draw.normal(mean, 1, (4, 5, 3)), dtype=torch.float32) for mean in (1, -1)
        )
        alpha = torch.tensor(draw.random((4, 1, 1)), dtype=torch.float32).expand_as(real)
        penalty = gradient_penalty(critic, real, fake, alpha)
        loss = critic(fake).mean() - critic(real).mean() + 10 * penalty
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.extend((loss.item(), penalty.item()))
    return losses


def any_device(torch, nn, optim, F):
    """A script that takes a GPU if there is one, with what such scripts do besides training."""
    use_cuda = torch.cuda.is_available()
    device = torch.device("cuda" if use_cuda else "cpu")
    torch.manual_seed(1)
    if use_cuda:
        torch.cuda.manual_seed_all(1)
    torch.set_printoptions(precision=3)
    assert repr(torch.tensor([1 / 3])) == "tensor([0.333])"
    torch.set_printoptions(precision=4)

    class Model(nn.Module):
        def __init__(self, input_size, hidden_size, output_size):
            super().__init__()
            self.hidden_size = hidden_size
            self.rnn = nn.RNN(input_size, hidden_size, nonlinearity="relu", batch_first=True)
            self.fc = nn.Linear(hidden_size, output_size)

        def forward(self, x):
            h0 = torch.zeros(1, x.size(0), self.hidden_size, device=x.device)
            out, hn = self.rnn(x, h0.detach())
            assert torch.allclose(out[:, -1], hn[0], atol=1e-6)
            return self.fc(out[:, -1, :])

    model = Model(4, 10, 3).to(device)
    set_weights(torch, model)
    best, patience = torch.inf, 0
    optimizer = optim.Adagrad(model.parameters(), lr=0.05)
    scheduler = optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=2, factor=0.5)
    draw = np.random.default_rng(9)
    x = torch.from_numpy(draw.normal(size=(12, 6, 4))).float().to(device)
    classes = torch.from_numpy(draw.integers(0, 3, 12)).to(device)
    assert torch.unique(classes).tolist() == [0, 1, 2]
    losses = []
    for _epoch in range(10):
        outputs = model(x)
        loss = F.cross_entropy(outputs, classes)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step(loss.item())
        if loss.item() < best:
            best, patience = loss.item(), 0
        else:
            patience += 1
        losses.append(loss.cpu().data.numpy().item())
        _, predicted = torch.max(outputs.data, 1)
        wrong = torch.nonzero(predicted != classes).view(-1)
        assert torch.numel(wrong) + (predicted == classes).sum().item() == 12
    return losses


PROGRAMS = {
    program.__name__: program
    for program in (
        classify_names,
        generate_text,
        translate,
        translate_batches,
        custom_lstm,
        predict_sine,
        classify_sequences,
        penalise_gradients,
        any_device,
    )
}


def run(program, library):
    return program(library, library.nn, library.optim, library.nn.functional)


@pytest.mark.parametrize("name", PROGRAMS)
def test_script(name):
    losses = run(PROGRAMS[name], tinygrad_rnn)
    assert np.isfinite(losses).all()
    if name != "penalise_gradients":  # where each loss is of other data, and may be negative
        half = len(losses) // 2
        assert np.mean(losses[half:]) < np.mean(losses[:half])
